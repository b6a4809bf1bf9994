"""The simulators in which a policy practises: they go on where the last round left them, half-finished episodes too.

Shape legend: N simulators, O observations, A actions.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator

from envs.robots.episodes import Episode
from envs.robots.rollout import Record, seed_from
from envs.robots.simulators import Simulator
from unified_irl.contracts import State


class Practice:
    """N simulators side by side."""

    def __init__(self, simulators: list[Simulator]) -> None:
        self.simulators = simulators
        self.demonstrated: np.ndarray | None = None
        """[S, P]: physical states that somebody was in."""
        self.share = 0.0
        """Of the episodes, how many begin in one of those."""
        self.records: list[Record] = []
        self.num_steps = 0

    def observations(self, generator: Generator) -> np.ndarray:
        """float32[N, O]: what every simulator shows now; new episodes begin where there is none."""
        if not self.records:
            self.records = [self._begin(one, generator) for one in self.simulators]
        return np.stack([record.observations[-1] for record in self.records])

    def step(self, actions: np.ndarray, generator: Generator) -> tuple[np.ndarray, np.ndarray, list[Episode]]:
        """One step of each: next observations [N, O]; what was paid, and whether the world or anything at all ended the
        episode [N, 3]; and the episodes it finished that began where the task begins."""
        following, outcomes, finished = [], [], []
        for lane, (simulator, action) in enumerate(zip(self.simulators, actions, strict=True)):
            record = self.records[lane]
            over = record.step(simulator, action)
            following.append(record.observations[-1])
            outcomes.append((record.rewards[-1], record.terminated, over))
            if over:
                finished += [record.episode()] if record.is_whole else []
                self.records[lane] = self._begin(simulator, generator)
        self.num_steps += len(self.simulators)
        return np.stack(following), np.array(outcomes, np.float32), finished

    def _begin(self, simulator: Simulator, generator: Generator) -> Record:
        seed = seed_from(generator)
        if self.demonstrated is None or float(torch.rand((), generator=generator)) >= self.share:
            return Record.begin(simulator, seed)
        row = int(torch.randint(len(self.demonstrated), (), generator=generator))
        return Record.begin_at(simulator, self.demonstrated[row], seed)

    def state_dict(self) -> State:
        """Where every simulator stands; one that cannot be put back begins a new episode when resumed."""
        return {
            "num_steps": self.num_steps,
            "lanes": [
                {"record": record.state_dict(), "simulator": simulator.state()}
                for record, simulator in zip(self.records, self.simulators, strict=False)
                if simulator.can_restore
            ],
        }

    def load_state_dict(self, state: State) -> None:
        self.num_steps = state["num_steps"]
        self.records = []
        for simulator, lane in zip(self.simulators, state["lanes"], strict=False):
            simulator.restore(lane["simulator"])
            self.records.append(Record.restored(lane["record"]))
