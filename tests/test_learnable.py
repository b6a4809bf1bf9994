"""A module that learns: its parameters, its optimiser and what is frozen of it."""

from __future__ import annotations

import torch

from unified_irl import Demonstrations, DescentConfig, LearnableModule, Trajectories
from unified_irl.batch import Batch


class Numbers(LearnableModule):
    def forward(self, steps: Trajectories) -> torch.Tensor:
        return self.numbers[steps.data["which"]]


def steps() -> Trajectories:
    which = torch.tensor([[0, 1], [1, 2]])
    return Trajectories.whole(torch.tensor([4, 5]), {"which": which}, torch.full((2, 2), -0.5))


def descended(learner: Numbers, times: int) -> Numbers:
    batch = Batch(demonstrations=steps())
    for _ in range(times):
        learner.descend(lambda piece, _: (learner(piece.demonstrations).square().sum(), {}), batch, batch.normaliser())
    return learner


def fresh() -> Numbers:
    return Numbers(DescentConfig(learning_rate=0.1), numbers=torch.tensor([1.0, 2.0, 3.0]))


def test_a_checkpoint_holds_the_optimiser_too() -> None:
    one, other = descended(fresh(), 3), fresh()
    other.load_state_dict(one.state_dict())
    assert other.descent.num_steps == 3
    assert torch.equal(descended(one, 2).numbers, descended(other, 2).numbers)


def test_what_is_frozen_stays_and_learns_nothing() -> None:
    one = fresh()
    frozen = descended(one, 1).frozen()
    before = frozen.numbers.clone()
    descended(one, 2)
    assert torch.equal(frozen.numbers, before)
    assert not frozen(steps()).requires_grad


def test_a_reward_for_a_policy_has_no_gradient() -> None:
    one = fresh()
    assert one(steps()).requires_grad
    assert not one.for_policy()(steps()).requires_grad


def test_whole_behaviours_are_chosen_and_rewarded_throughout() -> None:
    made = steps().validated("it")
    assert bool(made.mask.all() and made.rewarded.all() and made.terminated.all())
    assert made.weight.tolist() == [1.0, 1.0]
    assert made.start_step.tolist() == [0, 0]
    assert not bool(made.truncated.any())


def test_demonstrations_by_one_maker() -> None:
    shown = Demonstrations.by("somebody", steps()).validated()
    assert [shown.makers[k].maker for k in shown.maker.tolist()] == ["somebody", "somebody"]
