"""A robot task as a domain: its people's feedback, what it builds for a method, and how it examines what was learnt."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Generator

from control.acting import Speaker
from control.config import ControlConfig
from control.examination import examine, reward_numbers
from control.files.demonstrations import episodes_of, read_demonstrations, read_own_preferences
from control.files.preferences import Comparisons, is_parquet, read_preferences
from control.ground_truth import GroundTruth
from control.policy import ControlPolicy
from control.poses import physics_of
from control.queries import QueryConfig, pick
from control.reward import MLPReward
from control.trainer import Trainer
from envs.robots import people, snapshots
from envs.robots.episodes import window, with_absorbing
from envs.robots.simulators import Simulator
from envs.robots.snapshots import Experts
from envs.robots.table import robot
from unified_irl.contracts import Metrics, Parts, Reward, RewardFunction, Sampler
from unified_irl.errors import UserError
from unified_irl.feed import stream
from unified_irl.feedback import Demonstrations, Preferences, Provenance
from unified_irl.methods import Method, Phase
from unified_irl.trajectories import Contexts, Trajectories

NUM_HELPERS = 10
"""Episodes that are simulated side by side outside practice; what people show must not depend on how one examines."""


class ControlDomain:
    """There is one context: wherever the simulator begins an episode."""

    def __init__(self, config: ControlConfig, seed: int) -> None:
        self.config, self.seed, self.robot = config, seed, robot(config.robot)
        self.data_seed = seed if config.people.data_seed < 0 else config.people.data_seed
        self.device = "cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu"
        if config.device == "cuda" and self.device == "cpu":
            raise UserError("device is cuda, but no CUDA device can be used; choose auto or cpu.")
        if self.helpers[0].horizon is None:
            raise UserError(
                f"{config.robot} has no time limit, so that an episode might never end; register the environment with "
                "max_episode_steps."
            )
        self.contexts = Contexts(ids=torch.zeros(1, dtype=torch.long), data={})

    def simulators(self, count: int) -> list[Simulator]:
        never_ends = self.config.ends == "fixed horizon"
        return [Simulator(self.config.robot, never_ends=never_ends) for _ in range(count)]

    @cached_property
    def helpers(self) -> list[Simulator]:
        """Simulators for whole episodes, outside practice."""
        return self.simulators(NUM_HELPERS)

    @cached_property
    def examiners(self) -> list[Simulator]:
        """Simulators of the task as it is, in which everybody is examined."""
        if self.config.ends != "fixed horizon":
            return self.helpers
        return [Simulator(self.config.robot) for _ in self.helpers]

    @cached_property
    def experts(self) -> Experts:
        return snapshots.load(snapshots.path_of(self.config.robot), self.config.robot)

    @property
    def absorbing_horizon(self) -> int:
        """Until when an episode that ended early goes on in an absorbing state; 0 where it does not."""
        limit = self.helpers[0].horizon
        return limit if limit is not None and self.config.ends == "absorbing" else 0

    @cached_property
    def demonstrations(self) -> Demonstrations | None:
        config = self.config.people
        draw = stream(self.data_seed, "demonstrations")
        if config.demonstrations_file:
            shown = read_demonstrations(config.demonstrations_file, spaces=self.spaces, download=config.allow_download)
        elif config.num_demonstrations:
            shown = people.demonstrate(self.experts, self.helpers, config, draw, self.config.robot)
        else:
            return None
        behaviours = with_absorbing(shown.trajectories, self.absorbing_horizon)
        answers = torch.zeros_like(behaviours.context_id)
        return Demonstrations(
            trajectories=Trajectories(**{**behaviours.state_dict(), "context_id": answers}),
            maker=shown.maker,
            makers=shown.makers,
        )

    @property
    def _has_demonstrations(self) -> bool:
        """Whether there are any to be had: few tasks come with some, and not every method asks for them."""
        return bool(self.config.people.demonstrations_file) or snapshots.path_of(self.config.robot).is_file()

    @cached_property
    def preferences(self) -> Preferences | None:
        config = self.config.people
        if config.preferences_file:
            path, runs_on = config.preferences_file, self.config.ends == "absorbing"
            if not is_parquet(path):
                return read_own_preferences(path, self.spaces, runs_on=runs_on)
            episodes = self._compared_episodes()
            return read_preferences(path, episodes, config.compared_file or None, runs_on=runs_on)
        return self._compared[0] if config.num_preferences else None

    @cached_property
    def _compared(self) -> tuple[Preferences, torch.Tensor, Trajectories]:
        """The embedded comparisons, where their segments lie, and in which episodes."""
        config, draw = self.config.people, stream(self.data_seed, "preferences")
        teacher = config.teacher if config.teacher != "custom" else config.who_compares.describe()
        maker = Provenance(
            maker=f"{self.config.robot} {', '.join(config.compared)}", labeller=teacher, source="embedded"
        )
        behaviours = people.pool(self.experts, self.helpers, config, draw)
        runs_on = self.config.ends == "absorbing"
        said, where = people.compare(behaviours, config, config.num_preferences, draw, (maker,), runs_on=runs_on)
        return said, where, behaviours

    def comparisons(self) -> tuple[Comparisons, Trajectories]:
        """The embedded comparisons as a table that refers to episodes, and these."""
        said, where, behaviours = self._compared
        count, (maker,) = len(said), said.makers
        table = Comparisons(
            episode_a=where[:, 0], start_a=where[:, 1], episode_b=where[:, 2], start_b=where[:, 3],
            length=torch.full((count,), min(self.config.people.segment_length, behaviours.num_steps)), label=said.label,
            teacher=(maker.labeller or maker.maker,) * count,
        )  # fmt: skip
        return table, behaviours

    def _compared_episodes(self) -> Trajectories:
        """The episodes that a file of comparisons refers to."""
        path = self.config.people.compared_file or self.config.people.demonstrations_file
        if not path:
            raise UserError(
                "preferences_file refers to episodes; name the file that holds them as people.compared_file."
            )
        return read_demonstrations(path, spaces=self.spaces).trajectories

    @property
    def spaces(self) -> tuple[int, int, torch.Tensor, torch.Tensor]:
        one = self.helpers[0]
        return one.observation_size, one.action_size, torch.from_numpy(one.low), torch.from_numpy(one.high)

    def build(self, method: Method) -> Parts:
        config, draw = self.config, stream(self.seed, "build")
        practising = self.simulators(config.sac.num_simulators)
        trainer = Trainer(practising[0].env, practising, config.sac, draw, self.device)
        if method.uses_demonstrations and self.demonstrations is not None:
            self._show(trainer, self.demonstrations.trajectories)
        policy = ControlPolicy(trainer, self.helpers, method.policy_descent, self.absorbing_horizon)
        reward = self._reward(method, practising[0], policy, draw) if method.reward == "explicit" else None
        runs_on = reward is not None and self.config.ends == "absorbing"
        return Parts(policy, reward, policy.frozen(), window if runs_on else None)

    def _show(self, trainer: Trainer, behaviours: Trajectories) -> None:
        """What the trainer may know of the demonstrations: their steps in its batches, their spread for its inputs,
        their states to begin in."""
        sac = self.config.sac
        if sac.demonstrated_starts:
            trainer.practice.demonstrated = self._demonstrated_states()
            trainer.practice.share = sac.demonstrated_starts
        if not (sac.demonstrated_share or sac.normalise_observations):
            return
        steps = {name: value[behaviours.mask] for name, value in behaviours.data.items()}
        lengths = behaviours.mask.sum(1)
        last = torch.zeros_like(behaviours.mask)
        last[torch.arange(len(behaviours)), lengths - 1] = behaviours.terminated
        if sac.demonstrated_share:
            trainer.show(steps, last[behaviours.mask])
        trainer.normalise_by(steps["observation"])

    def _demonstrated_states(self) -> np.ndarray:
        """[S, P]: the physical states of the demonstrations."""
        config, simulator = self.config.people, self.helpers[0]
        if not simulator.can_reset_to:
            raise UserError(
                "sac.demonstrated_starts needs physical states, which only MuJoCo's robots have; "
                f"{self.config.robot} is none, so set it to 0."
            )
        if config.demonstrations_file:
            assert self.demonstrations is not None
            shown = episodes_of(self.demonstrations.trajectories, config.demonstrations_file)
            otherwise = "practice cannot begin where they were; set sac.demonstrated_starts to 0."
            return np.concatenate([physics_of(simulator, one.observations, otherwise)[:-1] for one in shown])
        draw = stream(self.data_seed, "demonstrations")
        known = [one.physics for one in people.shown_episodes(self.experts, self.helpers, config, draw)]
        states = [one[:-1] for one in known if one is not None]
        if not states:
            raise UserError(
                f"The demonstrations stored for {self.config.robot} hold no physical states; store them anew with "
                f"unified-irl experts {self.config.robot} --only-harvest, or set sac.demonstrated_starts to 0."
            )
        return np.concatenate(states)

    def _reward(self, method: Method, simulator: Simulator, policy: ControlPolicy, draw: Generator) -> Reward:
        if self.config.learn_from == "ground truth":
            if any(phase.references or phase.needs_own_samples for phase in method.stages):
                raise UserError(
                    f"learn_from is 'ground truth', but {method.name} learns a reward; use it with a row whose phases "
                    "only practise (reward_steps 0, practice 1), or set learn_from to 'feedback'."
                )
            return GroundTruth()
        if self.config.sac.temperature == "auto" and any(
            phase.policy_updates and (phase.learns_demonstrations or phase.learns_preferences)
            for phase in method.stages
        ):
            raise UserError(
                f"sac.temperature is auto, but {method.name} moves the reward while the policy climbs it, and a tuned "
                "temperature would aim at an entropy that no longer fits; name a number."
            )
        reward = MLPReward(
            simulator.observation_size,
            simulator.action_size,
            simulator.low.tolist(),
            simulator.high.tolist(),
            replace(self.config.reward, absorbing=self.config.ends == "absorbing"),
            method.reward_descent,
            draw,
            self.device,
        )
        seen = [self.demonstrations.trajectories] if method.uses_demonstrations and self.demonstrations else []
        if method.uses_preferences and self.preferences is not None:
            seen += [self.preferences.first, self.preferences.second]
        if not seen and method.asks_first:  # what the policy does now must do
            nowhere = self.contexts[torch.zeros(len(self.helpers), dtype=torch.long)]
            seen = [policy.sample(nowhere, draw)]
        if seen:
            reward.fit_inputs(*seen)
        return reward

    def ask(
        self, own: Trajectories, reward: RewardFunction, count: int, phase: Phase, gamma: float, generator: Generator
    ) -> Preferences | None:
        """The teacher compares segments of the policy's own episodes, by what the task paid for them."""
        config = self.config.people
        wanted = QueryConfig(scheme=phase.query, segment_length=config.segment_length, num_queries=count)
        pairs = pick(
            own, reward, wanted, gamma=gamma, sharpness=phase.preference_sharpness, generator=generator,
            runs_on=self.config.ends == "absorbing",
        )  # fmt: skip
        if pairs is None:
            return None
        maker = Provenance(
            maker="the policy while learning", labeller=config.who_compares.describe(), source="online queries"
        )
        return people.judged(*pairs, config, generator, (maker,))

    @torch.no_grad()
    def evaluate(self, policy: Sampler, reward: RewardFunction | None) -> Metrics:
        """Returns of the task, acting by the mean and at random; the score puts random actions at 0 and the expert at
        1 (without known scales it is the return itself). And how far the reward agrees with the true one."""
        assert isinstance(policy, ControlPolicy | Speaker)
        draw = stream(self.seed, "examination")
        metrics, episodes = examine(policy, self.examiners, self.config.num_examined, draw)
        metrics["score"] = self.score(metrics["return"])
        metrics["stochastic_score"] = self.score(metrics["stochastic_return"])
        if self._has_demonstrations and self.demonstrations is not None:
            shown = self.demonstrations.trajectories
            metrics["demonstration_nll"] = -float(policy.log_prob(shown).sum() / shown.mask.sum())
        if reward is not None and not isinstance(reward, GroundTruth):
            behaviours = with_absorbing(episodes, self.absorbing_horizon)
            metrics |= reward_numbers(reward, behaviours, self.robot.id, draw)
        return metrics

    def score(self, value: float) -> float:
        low, high = self.robot.random_score, self._expert_score
        return value if low is None or high is None else (value - low) / (high - low)

    @cached_property
    def _expert_score(self) -> float | None:
        """The return of the expert that comes with the task; of a published one where none does."""
        if snapshots.path_of(self.config.robot).is_file():
            return self.experts.score
        return self.robot.expert_score
