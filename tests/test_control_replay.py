"""The memory of the control world: rewards asked at draw time, sums over several steps, ends, and a ring that grows."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from robots import Paid, seeded
from torch import Tensor

from control.replay import Replay
from control.scales import Scales

torch.set_num_threads(1)
SCALES = Scales(
    action_low=torch.tensor([-2.0]),
    action_high=torch.tensor([2.0]),
    observation_mean=torch.zeros(1),
    observation_std=torch.ones(1),
    action_margin=0.01,
    log_std_floor=-3.0,
)
TERMINATED, TIME_LIMIT = "terminated", "time limit"
Lane = list[tuple[float, str]]


def remembering(lanes: list[Lane], capacity: int = 1000) -> Replay:
    """Lanes of (reward, how a step ended). The observation of step t is t, what follows it t + ½, its action t/100."""
    replay = Replay(1, SCALES, capacity, len(lanes))
    for t, steps in enumerate(zip(*lanes, strict=True)):
        place = np.full((len(lanes), 1), t, np.float32)
        outcome = np.array([(reward, end == TERMINATED, end != "") for reward, end in steps], np.float32)
        replay.add(place, place / 100, place + np.float32(0.5), outcome)
    return replay


HAND = [
    [(1.0, ""), (2.0, ""), (4.0, TERMINATED), (8.0, ""), (16.0, ""), (32.0, "")],
    [(10.0, ""), (20.0, TIME_LIMIT), (40.0, ""), (80.0, ""), (160.0, ""), (320.0, "")],
]


def test_sums_over_three_steps_by_hand() -> None:
    """γ = ½, and 2 for every absorbing step, so a termination is worth 2 · ½ / (1 − ½) = 2 more and has no successor.

    First lane: 1 + 2/2 + (4 + 2)/4 = 3.5; 2 + (4 + 2)/2 = 5; 4 + 2 = 6; then 8 + 16/2 + 32/4 = 24 with γ³ of what
    follows step 5; and shorter sums at the edge of what is known. Second lane: a time limit cuts 10 + 20/2 = 20, and
    what follows step 1 still counts, by γ² = ¼.
    """
    drawn = remembering(HAND).transitions(torch.arange(12), Paid(after=2.0), 0.5, 3)
    assert drawn.reward[0::2].tolist() == [3.5, 5.0, 6.0, 24.0, 32.0, 32.0]
    assert drawn.discount[0::2].tolist() == [0.0, 0.0, 0.0, 0.125, 0.25, 0.5]
    assert drawn.following[6::2, 0].tolist() == [5.5, 5.5, 5.5]
    assert drawn.reward[1::2].tolist() == [20.0, 20.0, 120.0, 240.0, 320.0, 320.0]
    assert drawn.discount[1::2].tolist() == [0.25, 0.5, 0.125, 0.125, 0.25, 0.5]
    assert drawn.following[1::2, 0].tolist() == [1.5, 1.5, 4.5, 5.5, 5.5, 5.5]
    assert drawn.observation[:, 0].tolist() == [t for t in range(6) for _ in range(2)]
    assert torch.equal(drawn.seen, torch.cat([drawn.observation, drawn.observation / 100], 1))


def test_single_steps_by_hand() -> None:
    drawn = remembering(HAND).transitions(torch.tensor([4, 3, 0]), Paid(after=-3.0), 0.5, 1)
    assert drawn.reward.tolist() == [1.0, 20.0, 1.0]  # 4 − 3 where the world ended it
    assert drawn.discount.tolist() == [0.0, 0.5, 0.5]
    assert drawn.following[:, 0].tolist() == [2.5, 1.5, 0.5]


def test_absorbing_steps_are_worth_a_geometric_series() -> None:
    """r γ/(1 − γ) = 0.3 · 99 at γ = 0.99; nothing where nobody pays for them."""
    replay = remembering([[(1.0, TERMINATED), (1.0, TIME_LIMIT)]])
    for after, expected in ((0.3, 1.0 + 29.7), (0.0, 1.0)):
        drawn = replay.transitions(torch.tensor([0, 1]), Paid(after=after), 0.99, 1)
        assert drawn.reward.tolist() == pytest.approx([expected, 1.0], rel=1e-4)


def test_a_ring_that_came_round_keeps_its_order() -> None:
    """Room for four steps of two lanes: steps 4 and 5 took the places of 0 and 1, and 3 is followed by 4."""
    replay = remembering(HAND, capacity=9)
    assert (replay.capacity, replay.size, replay.head) == (8, 8, 4)
    drawn = replay.transitions(torch.arange(8), Paid(after=2.0), 0.5, 3)
    assert drawn.observation[:, 0].tolist() == [4, 4, 5, 5, 2, 2, 3, 3]
    assert drawn.reward.tolist() == [32.0, 320.0, 32.0, 320.0, 6.0, 120.0, 24.0, 240.0]
    assert drawn.discount.tolist() == [0.25, 0.25, 0.5, 0.5, 0.0, 0.125, 0.125, 0.125]
    assert drawn.following[:, 0].tolist() == [5.5, 5.5, 5.5, 5.5, 2.5, 4.5, 5.5, 5.5]


def by_walking(lane: Lane, t: int, num_steps: int, gamma: float, after: float) -> tuple[float, float, float]:
    """The sum, the discount and the observation that follows, step by step."""
    total, power = 0.0, 1.0
    for k in range(t, min(t + num_steps, len(lane))):
        reward, end = lane[k]
        total += power * reward
        if end == TERMINATED:
            return total + power * after * gamma / (1 - gamma), 0.0, k + 0.5
        power *= gamma
        if end:
            break
    return total, power, k + 0.5


@pytest.mark.parametrize("num_steps", [1, 2, 3, 5])
@pytest.mark.parametrize("num_lanes", [1, 3])
def test_sums_of_random_lanes_are_those_of_walking_them(num_steps: int, num_lanes: int) -> None:
    draw = random.Random(f"{num_steps} {num_lanes}")
    ends = ["", "", "", TERMINATED, TIME_LIMIT]
    for length, capacity in ((7, 1000), (50, 30), (30, 30)):
        lanes = [[(draw.gauss(0, 1), draw.choice(ends)) for _ in range(length)] for _ in range(num_lanes)]
        replay = remembering(lanes, capacity)
        drawn = replay.transitions(torch.arange(replay.size), Paid(after=0.7), 0.9, num_steps)
        assert replay.size == min(length * num_lanes, capacity)
        for row, t in enumerate(drawn.observation[:, 0].long().tolist()):
            expected = by_walking(lanes[row % num_lanes], t, num_steps, 0.9, 0.7)
            seen = drawn.reward[row].item(), drawn.discount[row].item(), drawn.following[row, 0].item()
            assert seen == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_rewards_are_asked_when_a_batch_is_drawn() -> None:
    """A reward that changed judges old steps anew; it is asked in the units of the environment."""
    replay, index = remembering(HAND), torch.tensor([0, 7])
    paid = Paid()
    assert replay.transitions(index, paid, 0.5, 1).reward.tolist() == [1.0, 80.0]
    paid.factor = -2.0
    assert replay.transitions(index, paid, 0.5, 1).reward.tolist() == [-2.0, -160.0]

    class Listening(Paid):
        def __call__(
            self, observation: Tensor, action: Tensor, next_observation: Tensor, true_reward: Tensor
        ) -> Tensor:
            self.heard = observation, action, next_observation
            return observation[:, 0] * 10

    listening = Listening()
    assert replay.transitions(index, listening, 0.5, 1).reward.tolist() == [0.0, 30.0]
    # Remembered actions lie in [−1, 1], those of the environment in [−2, 2]: 2 · 3/100.
    assert [one[:, 0].tolist() for one in listening.heard] == [[0, 3], pytest.approx([0, 0.06]), [0.5, 3.5]]


def test_memory_grows_without_losing_a_row_and_then_comes_round() -> None:
    """64 lanes; blocks of 65,536 rows until there are 149,952, the multiple of 64 below the capacity that was asked."""
    replay, one = Replay(1, SCALES, 150_000, 64), np.ones((64, 1), np.float32)

    def add(t: int) -> None:
        replay.add(t * one, 0 * one, t * one + np.float32(0.5), np.concatenate([t * one, 0 * one, 0 * one], axis=1))

    assert (replay.capacity, len(replay.rows)) == (149_952, 65_536)
    for t in range(1_100):
        add(t)
    assert (replay.size, len(replay.rows)) == (70_400, 131_072)
    assert torch.equal(replay.rows[: replay.size, 0], torch.arange(1_100.0).repeat_interleave(64))

    again = Replay(1, SCALES, 150_000, 64)
    again.load_state_dict(replay.state_dict())
    for t in range(1_100, 2_400):
        add(t)
    assert (replay.size, replay.head, len(replay.rows)) == (149_952, 57 * 64, 149_952)
    held = replay.rows[:, 0].view(-1, 64)
    assert torch.equal(held[:, 0], torch.cat([torch.arange(2_343.0, 2_400.0), torch.arange(57.0, 2_343.0)]))
    assert bool((held == held[:, :1]).all())

    replay = again  # what `add` fills
    for t in range(1_100, 2_400):
        add(t)
    assert torch.equal(replay.rows[:, 0].view(-1, 64), held)
    assert replay.head == 57 * 64


def test_rows_are_drawn_evenly_from_what_is_known() -> None:
    replay = remembering(HAND)
    counts = torch.bincount(replay.draw(12_000, seeded()), minlength=12)
    assert len(counts) == 12
    assert bool(((counts - 1000).abs() < 5 * 1000**0.5).all())
    assert torch.equal(replay.draw(9, seeded(1)), replay.draw(9, seeded(1)))


def test_a_cut_ends_sums_without_ending_episodes() -> None:
    """What is added after a cut does not follow from what was there, but values still count."""
    replay = remembering([lane[:2] for lane in HAND])
    replay.cut()
    for _ in range(2):
        nine = np.full((2, 1), 9.0, np.float32)
        replay.add(nine, nine, nine, np.zeros((2, 3), np.float32))
    drawn = replay.transitions(torch.tensor([0, 2, 1]), Paid(), 0.5, 3)
    assert drawn.reward.tolist() == [2.0, 2.0, 20.0]
    assert drawn.discount.tolist() == [0.25, 0.5, 0.25]
    Replay(1, SCALES, 1000, 2).cut()
