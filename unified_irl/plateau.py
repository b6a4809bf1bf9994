"""When to stop: a number that ought to fall, and has not for a while."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from unified_irl.contracts import State, Stateful


@dataclass
class Plateau:
    """The lowest value seen, what was learnt when it was seen, and how long ago that was."""

    lowest: float = math.inf
    rounds_since: int = 0
    best: State = field(default_factory=dict)

    def saw(self, value: float, tolerance: float, learnt: Mapping[str, Stateful]) -> None:
        """Take note of a value; where it is the lowest so far, keep a copy of what had been learnt."""
        if value < self.lowest - tolerance:
            self.lowest, self.rounds_since = value, 0
            self.best = {name: copy.deepcopy(one.state_dict()) for name, one in learnt.items()}
        else:
            self.rounds_since += 1

    def state_dict(self) -> State:
        return {"lowest": self.lowest, "rounds_since": self.rounds_since, "best": self.best}

    def load_state_dict(self, state: State) -> None:
        self.lowest, self.rounds_since, self.best = state["lowest"], state["rounds_since"], state["best"]
