"""Rewards that are learnt: perceptrons over single steps.

Shape legend: E members, N steps in any order, B behaviours, T steps of a behaviour, O observation, A action, I inputs.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Generator, Tensor, nn

from control.features import Bounds, Features, Perceptrons
from control.reward_config import RewardConfig
from unified_irl.batch import Batch, Normaliser
from unified_irl.contracts import LossFunction, State
from unified_irl.descent import Descent
from unified_irl.descent_config import DescentConfig
from unified_irl.trajectories import Trajectories

ALL = slice(None)
RUNNING_SHARE = 0.01
"""How much the latest descent step counts in the running statistics of the reward."""
SMALLEST_STD = 0.01
"""A reward that says nothing yet is not blown up to a standard deviation of 1."""


class RewardModel(nn.Module):
    """A reward that only judges: what is saved, evaluated, and shown to a policy."""

    running: Tensor
    """float64[3]: how much has been seen, and the reward and its square, as averages that forget."""
    output_scale: Tensor

    def __init__(
        self,
        num_observations: int,
        action_low: Bounds,
        action_high: Bounds,
        config: RewardConfig,
        generator: Generator,
    ) -> None:
        super().__init__()
        self.config = config
        self.features = Features(num_observations, action_low, action_high, config)
        self.perceptrons = Perceptrons(self.features.num_inputs + config.absorbing, config, generator)
        self.register_buffer("running", torch.zeros(3, dtype=torch.float64))
        self.register_buffer("output_scale", torch.ones(()))

    def bounded(self, output: Tensor) -> Tensor:
        bound = self.config.bound
        if self.config.bounding == "clamp":
            return output.clamp(-bound, bound)
        return bound * torch.tanh(output / bound) if self.config.bounding == "tanh" else output

    def judge(self, inputs: Tensor, members: slice = ALL) -> Tensor:
        """float[E, N]: what each member makes of the inputs [N, I]."""
        return self.bounded(self.perceptrons(inputs, members))

    def of_absorbing(self, members: slice = ALL) -> Tensor:
        """float[E, 1]: the reward of one absorbing step."""
        if not self.config.absorbing:
            return self.features.centre.new_zeros(self.config.num_members, 1)[members]
        return self.judge(self.features.of_absorbing(), members)

    def by_member(self, trajectories: Trajectories, members: slice = ALL) -> Tensor:
        """float[E, B, T]; zero where nothing is rewarded.

        A column that stands for n absorbing steps is worth n times the reward of one. The caller discounts it as a
        single step: for γ < 1 the later ones among the n weigh as much as the first.
        """
        absorbing_steps = trajectories.data["absorbing"]
        ordinary = trajectories.rewarded & (absorbing_steps == 0)
        judged = self.judge(self.features.of(trajectories, ordinary), members)
        steps = absorbing_steps.to(judged) * trajectories.rewarded.to(judged.device)
        rest = self.of_absorbing(members)[:, :, None] * steps
        return rest.masked_scatter(ordinary.to(judged.device), judged)

    def forward(self, trajectories: Trajectories) -> Tensor:
        """float[B, T]: the mean over members."""
        return self.by_member(trajectories).mean(0)

    @torch.no_grad()
    def disagreement(self, trajectories: Trajectories) -> Tensor:
        """float[B, T]: the standard deviation over members."""
        return self.by_member(trajectories).std(0, correction=0)

    def slopes(self, points: Tensor, *, differentiable: bool) -> Tensor:
        """float[E, N]: the length of each member's gradient by its inputs, at points [N, I].

        It is taken before the reward is bounded: where a clamp is flat, nothing else would keep the network from
        running off. The input that marks absorbing steps does not take part.
        """
        with torch.enable_grad():
            points = points.detach().expand(self.config.num_members, -1, -1).clone().requires_grad_()
            output = self.perceptrons(points).sum()
            (gradient,) = torch.autograd.grad(output, points, create_graph=differentiable)
        return torch.linalg.vector_norm(gradient[..., : self.features.num_inputs], dim=-1)

    @torch.no_grad()
    def watch(self, inputs: Tensor) -> None:
        """Let the running statistics of the reward see these steps [N, I]."""
        reward = self.judge(inputs).mean(0).double()
        latest = torch.stack([torch.ones_like(reward[0]), reward.mean(), reward.square().mean()])
        self.running.lerp_(latest, RUNNING_SHARE)
        _, mean, square = self.running / self.running[0]
        self.output_scale.copy_(1.0 / (square - mean.square()).clamp(min=SMALLEST_STD**2).sqrt())

    def for_policy(self) -> PolicyReward:
        return PolicyReward(self)

    def frozen(self) -> RewardModel:
        """A copy that stays as it is."""
        return copy.deepcopy(self).requires_grad_(False)


class PolicyReward:
    """The reward of single transitions, as it is at the time of the call: detached, bounded and scaled."""

    def __init__(self, model: RewardModel) -> None:
        self.model = model

    @torch.no_grad()
    def __call__(
        self, observation: Tensor, action: Tensor, next_observation: Tensor, true_reward: Tensor | None = None
    ) -> Tensor:
        """float[N] from [N, O], [N, A] (in the units of the environment) and [N, O].

        What the simulator paid is offered to whatever judges a policy's steps; a learnt reward does not look at it.
        """
        del true_reward
        return self._shown(self.model.judge(self.model.features(observation, action, next_observation)))

    @torch.no_grad()
    def absorbing(self) -> Tensor:
        """float[]: the reward of one absorbing step."""
        return self._shown(self.model.of_absorbing()).squeeze(0)

    def _shown(self, reward: Tensor) -> Tensor:
        mean = reward.mean(0)
        return mean * self.model.output_scale if self.model.config.normalise_output else mean


class MLPReward:
    """A reward that learns.

    Every member of an ensemble descends the loss by itself, on the same batches: members differ in how they start.
    """

    def __init__(
        self,
        num_observations: int,
        num_actions: int,
        action_low: Bounds,
        action_high: Bounds,
        config: RewardConfig,
        descent: DescentConfig,
        generator: Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        """The generator draws the first weights and seeds the draws to come; nothing else reads or moves it later."""
        assert len(action_low) == len(action_high) == num_actions, "expected a lower and an upper bound per action"
        self.config = config
        self.model = RewardModel(num_observations, action_low, action_high, config, generator).to(device)
        self.descent = Descent(self.model.parameters(), descent)
        self.generator = Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))
        self.members = ALL

    def fit_inputs(self, *behaviours: Trajectories) -> None:
        """Fix how inputs are scaled, from data; once, before anything is learnt, since it changes what is said."""
        self.model.features.fit(*behaviours)

    def __call__(self, trajectories: Trajectories) -> Tensor:
        """float[B, T]: the mean over members; see `RewardModel.by_member` for absorbing columns."""
        return self.model.by_member(trajectories, self.members).mean(0)

    def disagreement(self, trajectories: Trajectories) -> Tensor:
        """float[B, T]: the standard deviation over members."""
        return self.model.disagreement(trajectories)

    @torch.no_grad()
    def member_rewards(self, trajectories: Trajectories) -> Tensor:
        """float[E, B, T]: what each member says."""
        return self.model.by_member(trajectories)

    def for_policy(self) -> PolicyReward:
        """The reward of transitions, always as it is when asked, on the device of its weights."""
        return self.model.for_policy()

    def frozen(self) -> RewardModel:
        """The reward as it is now; later learning leaves it untouched."""
        return self.model.frozen()

    def descend(
        self, loss: LossFunction, batch: Batch, normaliser: Normaliser, step_size: float = 1.0
    ) -> dict[str, Tensor]:
        """One step down the loss and the gradient penalty.

        `loss` in the metrics is the mean over members without the penalty, as `measure` says it. The penalty looks at
        the whole batch and is paid with the first micro-batch, so that they add up whatever their size.
        """
        steps, points = self._drawn(batch, self.generator)
        slopes = self.model.slopes(points, differentiable=self.config.gradient_penalty > 0)
        unpaid = [self._penalty(slopes).sum()] if self.config.gradient_penalty else []

        def penalised(piece: Batch, scale: Normaliser) -> tuple[Tensor, dict[str, Tensor]]:
            total, metrics = self._over_members(loss, piece, scale)
            if unpaid:
                total = total + unpaid.pop()
            return total, metrics

        metrics = self.descent.descend(penalised, batch, normaliser, step_size)
        self.model.perceptrons.turn()
        self.model.watch(steps)
        return metrics | self._smoothness(slopes)

    def measure(self, loss: LossFunction, batch: Batch, normaliser: Normaliser) -> dict[str, Tensor]:
        """The same numbers, at the points that the next descent on this batch would draw."""
        ahead = Generator().set_state(self.generator.get_state())
        _, points = self._drawn(batch, ahead)
        slopes = self.model.slopes(points, differentiable=False)

        def plain(piece: Batch, scale: Normaliser) -> tuple[Tensor, dict[str, Tensor]]:
            return self._over_members(loss, piece, scale)

        return self.descent.measure(plain, batch, normaliser) | self._smoothness(slopes)

    def _over_members(self, loss: LossFunction, piece: Batch, scale: Normaliser) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of the members' losses, whose gradient moves each by its own, and the mean of what they say.

        `loss` among the metrics takes the place of what the descent would write there, the sum.
        """
        count, total, mean = self.config.num_members, torch.zeros(()), dict[str, Tensor]()
        for member in range(count):
            with self._only(member):
                value, metrics = loss(piece, scale)
            total = total + value
            for name, metric in {"loss": value.detach(), **metrics}.items():
                mean[name] = mean.get(name, 0.0) + metric / count
        return total, mean

    @contextmanager
    def _only(self, member: int) -> Iterator[None]:
        """Let this member speak for the reward."""
        self.members = slice(member, member + 1)
        try:
            yield
        finally:
            self.members = ALL

    def _penalty(self, slopes: Tensor) -> Tensor:
        """float[E]"""
        excess = (slopes - self.config.penalty_target).clamp(min=0.0)
        return self.config.gradient_penalty * excess.square().mean(1)

    def _smoothness(self, slopes: Tensor) -> dict[str, Tensor]:
        slopes = slopes.detach()
        return {"gradient_penalty": self._penalty(slopes).mean(), "reward_gradient_norm": slopes.mean()}

    def _drawn(self, batch: Batch, generator: Generator) -> tuple[Tensor, Tensor]:
        """Random steps [N, I] of the batch, and random points [N, I] between its two sides.

        Every chosen step of a side is as likely as any other. What only one side knows is compared with itself.
        """
        count, steps, points = self.config.penalty_points, [], []
        compared = batch.preferences
        pairs = [(batch.demonstrations, batch.own)]
        pairs += [] if compared is None else [(compared.first, compared.second)]
        for pair in pairs:
            sides = [self._some(one, count, generator) for one in pair if one is not None and bool(one.mask.any())]
            if not sides:
                continue
            first, second = sides if len(sides) == 2 else (sides[0], sides[0].flip(0))
            share = torch.rand(count, 1, generator=generator).to(first)
            steps += sides
            points.append(torch.lerp(first, second, share))
        assert points, "a batch without a chosen step teaches a reward nothing"
        return torch.cat(steps), torch.cat(points)

    def _some(self, behaviours: Trajectories, count: int, generator: Generator) -> Tensor:
        """float[count, I]: chosen steps, drawn with replacement."""
        chosen = behaviours.mask.nonzero()
        picked = chosen[torch.randint(len(chosen), (count,), generator=generator).to(chosen.device)]
        return self.model.features.of(behaviours, picked.unbind(1))

    def state_dict(self) -> State:
        return {
            "model": self.model.state_dict(),
            "descent": self.descent.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: State) -> None:
        self.model.load_state_dict(state["model"])
        self.descent.load_state_dict(state["descent"])
        self.generator.set_state(state["generator"].cpu())
