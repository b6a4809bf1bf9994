"""How well a learnt reward agrees with the true one.

Correlations look at what the simulator paid on the way, and are blind to what a reward says elsewhere. The EPIC
distance (Gleave et al. 2021) compares two rewards as functions, whatever their scale and potential shaping; it needs
a true reward that can be asked about any transition. `TRUE_REWARDS` has those of the tasks, with the parameters that
Gymnasium gives them by default, whose reward is a function of observation, action and next observation. It leaves out

- HalfCheetah, Hopper, Walker2d, Ant, Swimmer and Humanoid: they pay for the mean velocity over a step, and the
  observation holds the velocity at its end, and no position along the track;
- InvertedDoublePendulum: it pays for joint velocities that its observation cuts off at ±10.

Shape legend: B behaviours, T steps, V transitions of the coverage, M draws of the canonical shaping.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Generator, Tensor

from unified_irl.contracts import Metrics, RewardFunction
from unified_irl.errors import Diverged
from unified_irl.objectives import returns
from unified_irl.trajectories import Trajectories

StepFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
"""float[N]: the reward of transitions [N, O], [N, A], [N, O]."""
ROWS_AT_ONCE = 1 << 16
FEWEST_RETURNS = 3
"""Two points always correlate perfectly."""


def pendulum(observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
    """−(θ² + 0.1 θ̇² + 0.001 u²) of the state before the step; the torque is cut off at ±2."""
    cosine, sine, velocity = observation.unbind(-1)
    torque = action[..., 0].clamp(-2.0, 2.0)
    return -(torch.atan2(sine, cosine).square() + 0.1 * velocity.square() + 0.001 * torque.square())


def inverted_pendulum(observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
    """1 while the pole leans by no more than 0.2."""
    return (next_observation[..., 1].abs() <= 0.2).to(observation.dtype)


def mountain_car(observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
    """100 at the flag, reached at any speed forwards; the action's square costs 0.1."""
    position, velocity = next_observation.unbind(-1)
    return 100.0 * ((position >= 0.45) & (velocity >= 0)) - 0.1 * action[..., 0].square()


def reacher(observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
    """The last two observations are the way from the target to the fingertip."""
    distance: Tensor = torch.linalg.vector_norm(next_observation[..., 8:10], dim=-1)
    return -distance - action.square().sum(-1)


def pusher(observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
    """The last nine observations are the places of the tip, the object and the goal."""
    tip, thing, goal = next_observation[..., 14:17], next_observation[..., 17:20], next_observation[..., 20:23]
    near: Tensor = torch.linalg.vector_norm(thing - tip, dim=-1)
    far: Tensor = torch.linalg.vector_norm(thing - goal, dim=-1)
    return -far - 0.5 * near - 0.1 * action.square().sum(-1)


TRUE_REWARDS: dict[str, StepFunction] = {
    "InvertedPendulum-v5": inverted_pendulum,
    "MountainCarContinuous-v0": mountain_car,
    "Pendulum-v1": pendulum,
    "Pusher-v5": pusher,
    "Reacher-v5": reacher,
}


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """The transitions on which two rewards are compared, and the draws that make them canonical."""

    transitions: tuple[Tensor, Tensor, Tensor]
    """[V, O], [V, A], [V, O]: s, a and s'."""
    canonical: tuple[Tensor, Tensor, Tensor]
    """[M, O], [M, A], [M, O]: S, A and S', each drawn by itself; S and S' from the same distribution."""

    @staticmethod
    def drawn(behaviours: Trajectories, generator: Generator, num_transitions: int, num_canonical: int) -> Coverage:
        """With replacement from the chosen steps; states are those before and after them."""
        before, action, after = (
            behaviours.data[name][behaviours.mask] for name in ("observation", "action", "next_observation")
        )
        states = torch.cat([before, after])

        def some(values: Tensor) -> Tensor:
            return values[torch.randint(len(values), (num_canonical,), generator=generator)]

        rows = torch.randint(len(action), (num_transitions,), generator=generator)
        return Coverage(
            transitions=(before[rows], action[rows], after[rows]), canonical=(some(states), some(action), some(states))
        )


@torch.no_grad()
def canonical(reward: StepFunction, coverage: Coverage, gamma: float) -> Tensor:
    """float64[V]: C(R)(s,a,s') = R(s,a,s') + E[γ R(s',A,S') − R(s,A,S') − γ R(S,A,S')].

    All transitions share their draws of A and S', so that shaping by a potential cancels exactly and not only in
    expectation. The value of the state after an episode's end is that of any other state.
    """
    before, action, after = coverage.transitions
    other, other_action, other_after = coverage.canonical

    def expected(states: Tensor) -> Tensor:
        """E[R(state, A, S')] for each state."""
        count, parts = len(other_action), []
        for some in torch.split(states, max(1, ROWS_AT_ONCE // count)):
            repeated = some.repeat_interleave(count, 0)
            answers = reward(repeated, other_action.repeat(len(some), 1), other_after.repeat(len(some), 1))
            parts.append(answers.double().cpu().view(len(some), count).mean(1))
        return torch.cat(parts)

    here = reward(before, action, after).double().cpu()
    anywhere = reward(other, other_action, other_after).double().cpu().mean()
    return here + gamma * expected(after) - expected(before) - gamma * anywhere


def epic_distance(first: StepFunction, second: StepFunction, coverage: Coverage, gamma: float) -> float | None:
    """sqrt((1 − ρ) / 2), ρ the correlation of the canonical rewards: 0 the same, 1 opposite.

    None where one of the canonical rewards is constant: such a reward asks for nothing on these transitions.
    """
    units = []
    for reward in (first, second):
        value = _finite(canonical(reward, coverage, gamma))
        centred = value - value.mean()
        raw = reward(*coverage.transitions)
        # Sums of a few rewards carry a few roundings; what varies less than that is a constant.
        noise = 16.0 * torch.finfo(raw.dtype).eps * float(raw.detach().abs().max())
        if float(centred.abs().max()) <= noise:
            return None
        units.append(centred / torch.linalg.vector_norm(centred))
    # The same as sqrt((1 − ρ) / 2), without the digits that 1 − ρ loses where ρ is close to 1.
    return min(1.0, 0.5 * float(torch.linalg.vector_norm(units[0] - units[1])))


def by_step(reward: RewardFunction) -> StepFunction:
    """A reward of behaviours, asked about transitions one by one: each is a behaviour of a single step."""

    def judge(observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
        count = len(observation)
        steps, nothing = torch.ones(count, 1, dtype=torch.bool), torch.zeros(count, 1)
        given = {"observation": observation, "action": action, "next_observation": next_observation}
        return reward(
            Trajectories(
                data={
                    **{name: value[:, None] for name, value in given.items()},
                    "true_reward": nothing,
                    "absorbing": nothing,
                },
                mask=steps,
                rewarded=steps,
                context_id=torch.full((count,), -1),
                weight=torch.ones(count),
                behaviour_log_prob=nothing,
                start_step=torch.zeros(count, dtype=torch.long),
                terminated=torch.zeros(count, dtype=torch.bool),
                truncated=torch.zeros(count, dtype=torch.bool),
            )
        ).squeeze(1)

    return judge


@torch.no_grad()
def recovery(
    reward: RewardFunction,
    behaviours: Trajectories,
    gamma: float,
    generator: Generator,
    true_reward: StepFunction | None = None,
    num_transitions: int = 512,
    num_canonical: int = 256,
) -> Metrics:
    """The agreement of `reward` with what the task paid: per chosen step, per discounted return, and EPIC.

    A number that cannot be computed is absent: correlations where one side is constant or fewer than three returns
    are known, and `epic_distance` where no `true_reward` is given (see `TRUE_REWARDS`) or one side asks for nothing.
    Returns count absorbing columns as the learner does; the task pays nothing there.
    """
    judged_BT = reward(behaviours).cpu().double()
    paid_BT = behaviours.data["true_reward"].double()
    discount_BT = behaviours.discount(gamma).double()
    _finite(judged_BT[behaviours.rewarded])
    metrics = _correlations("step", judged_BT[behaviours.mask], paid_BT[behaviours.mask])
    if len(behaviours) >= FEWEST_RETURNS:
        metrics |= _correlations("return", returns(judged_BT, discount_BT), returns(paid_BT, discount_BT))
    if true_reward is not None:
        coverage = Coverage.drawn(behaviours, generator, num_transitions, num_canonical)
        distance = epic_distance(by_step(reward), true_reward, coverage, gamma)
        metrics |= {} if distance is None else {"epic_distance": distance}
    return metrics


def _correlations(of: str, learnt: Tensor, true: Tensor) -> Metrics:
    """Nothing where a side is constant, up to the rounding of 32-bit floats."""
    for side in (learnt, true):
        if len(side) < 2 or float(side.max() - side.min()) <= 1e-6 * float(side.abs().max()):
            return {}
    sides = learnt.numpy(), true.numpy()
    return {
        f"{of}_pearson": float(stats.pearsonr(*sides).statistic),
        f"{of}_spearman": float(stats.spearmanr(*sides).statistic),
    }


def _finite(reward: Tensor) -> Tensor:
    wrong = int((~reward.isfinite()).sum())
    if wrong:
        raise Diverged(
            f"recovery: the reward is NaN or infinite on {wrong} of {reward.numel()} steps; it can only be compared "
            "where it is a number, so go back to a checkpoint before it diverged."
        )
    return reward
