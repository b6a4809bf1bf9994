"""Which data a round sees: streams, sections of a pass, partners, held-out comparisons and batches."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unified_irl import feed
from unified_irl.feedback import Demonstrations, Preferences, Provenance
from unified_irl.methods import Phase
from unified_irl.trajectories import Contexts, Trajectories

torch.set_num_threads(1)
quick = settings(deadline=None, max_examples=40)


def rows(context_ids: list[int]) -> Trajectories:
    """Behaviours of one step that answer the given contexts; `data["row"]` says which row each was."""
    count = len(context_ids)
    mask = torch.ones(count, 1, dtype=torch.bool)
    return Trajectories(
        data={"row": torch.arange(count)[:, None]},
        mask=mask,
        rewarded=mask,
        context_id=torch.tensor(context_ids, dtype=torch.long),
        weight=torch.ones(count),
        behaviour_log_prob=torch.zeros(count, 1),
        start_step=torch.zeros(count, dtype=torch.long),
        terminated=mask[:, 0],
        truncated=~mask[:, 0],
    )


def row_of(part: Trajectories) -> list[int]:
    return part.data["row"][:, 0].tolist()


def shown(context_ids: list[int]) -> Demonstrations:
    return Demonstrations(
        trajectories=rows(context_ids),
        maker=torch.zeros(len(context_ids), dtype=torch.long),
        makers=(Provenance(maker="somebody"),),
    )


def compared(count: int) -> Preferences:
    return Preferences(
        first=rows([0] * count),
        second=rows([0] * count),
        label=torch.linspace(0.0, 1.0, count) if count > 1 else torch.ones(count),
        margin=torch.zeros(count),
        maker=torch.zeros(count, dtype=torch.long),
        makers=(Provenance(maker="somebody"),),
    )


def phase(**changes: Any) -> Phase:
    return Phase(**({"name": "test", "demonstration": "pairwise", "preference": "bradley-terry"} | changes))


def everything(count: int) -> Contexts:
    return Contexts(ids=torch.arange(count), data={"start": 100 + torch.arange(count)})


def numbers(*name: object) -> list[float]:
    return torch.rand(4, generator=feed.stream(*name)).tolist()  # type: ignore[arg-type]


def test_streams_are_reproducible_and_apart():
    """Named streams need no state, and none of 300 of them begins like another."""
    assert numbers(3, "own", 0, 7) == numbers(3, "own", 0, 7)
    names = [(seed, what, stage, turn) for seed in range(5) for what in ("own", "prompts", "pairs")
             for stage in range(2) for turn in range(10)]  # fmt: skip
    assert len({numbers(*name)[0] for name in names}) == len(names) == 300


def test_names_of_streams_cannot_be_mixed_up():
    alike = [(1, "a", 11), (1, "a", 1, 1), (1, "a1", 1), (1, "a", "11"), (11, "a", 1), (1, "a11"), (-1, "a", 11)]
    assert len({numbers(*name)[0] for name in alike}) == len(alike)


def test_a_stream_is_the_same_on_every_machine():
    """Its seed is the first 63 bits of BLAKE2b, not Python's hash, which differs from process to process."""
    assert feed.stream(0, "own", 1, 2).initial_seed() == feed.stream(0, "own", 1, 2).initial_seed()
    assert feed.stream(0, "test").initial_seed() == 4120885929777502606


def test_streams_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    numbers(0, "own")
    feed.prompts(shown(list(range(9))), phase(prompts=0.4), 0, 0, 0)
    feed.held_out(compared(9), 0.3, 0)
    assert torch.equal(torch.get_rng_state(), before)


@quick
@given(st.integers(1, 30), st.floats(0.01, 1.0), st.integers(0, 3), st.integers(0, 2))
def test_prompts_partition_the_data_in_every_pass(count, share, seed, pass_):
    """Each demonstration comes once per pass; the sections have ⌈share · count⌉ rows, but for the last."""
    data, one = shown(list(range(count))), phase(prompts=share)
    size = max(1, math.ceil(share * count - 1e-9))
    num_sections = math.ceil(count / size)
    turns = range(pass_ * num_sections, (pass_ + 1) * num_sections)
    sections = [row_of(feed.prompts(data, one, seed, 0, turn)) for turn in turns]
    assert [len(section) for section in sections[:-1]] == [size] * (num_sections - 1)
    assert sorted(row for section in sections for row in section) == list(range(count))
    assert row_of(feed.prompts(data, one, seed, 0, turns[0])) == sections[0]


def test_passes_stages_and_seeds_have_orders_of_their_own():
    data, one = shown(list(range(40))), phase(prompts=0.5)
    first = {
        name: tuple(row_of(feed.prompts(data, one, *name))) for name in ((0, 0, 0), (0, 0, 2), (0, 1, 0), (1, 0, 0))
    }
    assert len(set(first.values())) == 4


@pytest.mark.parametrize(("share", "count", "size"), [(0.07, 100, 7), (0.28, 25, 7), (1 / 3, 9, 3), (0.001, 5, 1)])
def test_sections_are_not_a_row_too_long(share: float, count: int, size: int):
    """0.07 · 100 is 7.000000000000001 in floats, and still 7."""
    assert len(feed.prompts(shown([0] * count), phase(prompts=share), 0, 0, 0)) == size


def test_all_prompts_are_all_in_order():
    data = shown([3, 1, 2])
    assert feed.prompts(data, phase(prompts=1.0), 0, 0, 5) is data.trajectories
    assert feed.prompts(data, phase(prompts=0.9), 0, 0, 5) is data.trajectories


def test_the_policy_acts_where_demonstrations_began():
    where = feed.contexts(everything(9), rows([4, 2, 4]), phase(), 0, 0, 0)
    assert where.ids.tolist() == [4, 2, 4]
    assert where.data["start"].tolist() == [104, 102, 104]


def test_practice_adds_contexts_that_differ_from_round_to_round():
    one = phase(practice=150)
    turns = [feed.contexts(everything(9), rows([4, 2]), one, 0, 0, turn).ids.tolist() for turn in (0, 1, 0)]
    assert turns[0] == turns[2] != turns[1]
    assert all(turn[:2] == [4, 2] and len(turn) == 152 for turn in turns)
    assert set(turns[0][2:]) == set(range(9))
    assert len(feed.contexts(everything(9), None, one, 0, 0, 0)) == 150


def test_demonstrations_from_nowhere_are_answered_from_anywhere():
    one, given_ = phase(), rows([3, -1, 5, *[-1] * 60])
    where = feed.contexts(everything(9), given_, one, 0, 0, 0)
    assert where.ids[[0, 2]].tolist() == [3, 5]
    assert set(where.ids.tolist()) == set(range(9))
    assert torch.equal(where.ids, feed.contexts(everything(9), given_, one, 0, 0, 0).ids)
    assert not torch.equal(where.ids, feed.contexts(everything(9), given_, one, 0, 0, 1).ids)


def test_rows_that_answer_each_other_stay_as_they_are():
    demonstrations, own = rows([3, 1, 1, 2]), rows([3, 1, 1, 2])
    there, here = feed.aligned(demonstrations, own, 0, 0, 0)
    assert there is demonstrations
    assert here is own


contexts = st.lists(st.integers(0, 5), min_size=1, max_size=12)


@quick
@given(contexts, contexts, st.integers(0, 3))
def test_partners_share_a_context_where_they_can(wanted, offered, seed):
    """Rows pair up by context; only a context that the other side does not know has a partner of another."""
    demonstrations, own = rows(wanted), rows(offered)
    there, here = feed.aligned(demonstrations, own, seed, 0, 0)
    assert len(there) == len(here)
    known = [context for context in offered if context in wanted]
    kept = known if known and len(offered) > len(wanted) else offered
    assert len(there) == max(len(wanted), len(kept))
    for left, right in zip(there.context_id.tolist(), here.context_id.tolist(), strict=True):
        assert left == right or left not in kept or right not in wanted
    for part, whole in ((there, demonstrations), (here, own)):
        assert torch.equal(part.context_id, whole.context_id[part.data["row"][:, 0]])
    again = feed.aligned(demonstrations, own, seed, 0, 0)
    assert (row_of(again[0]), row_of(again[1])) == (row_of(there), row_of(here))


def test_demonstrations_are_never_dropped_for_fewer_own_samples():
    there, here = feed.aligned(rows([1, 1, 2, 7]), rows([2, 1]), 0, 0, 0)
    assert row_of(there) == [0, 1, 2, 3]
    assert here.context_id.tolist()[:3] == [1, 1, 2]


def test_partners_take_turns():
    """Contexts 1 and 2 twice and once demonstrated, six own samples each: each demonstration is met equally often."""
    there, here = feed.aligned(rows([1, 1, 2]), rows([1] * 6 + [2] * 6), 0, 0, 0)
    assert torch.equal(there.context_id, here.context_id)
    assert sorted(row_of(here)) == list(range(12))
    assert Counter(row_of(there)) == {0: 3, 1: 3, 2: 6}


def test_partners_are_drawn_anew_every_round():
    turns = {tuple(row_of(feed.aligned(rows([1] * 6), rows([1] * 12), 0, 0, turn)[0])) for turn in range(5)}
    assert len(turns) == 5


def test_own_samples_of_contexts_that_nobody_demonstrated_are_left_out():
    """Practice contexts serve the policy, not the comparison with demonstrations."""
    there, here = feed.aligned(rows([3, 4]), rows([3, 4, 8, 9, 8]), 0, 0, 0)
    assert there.context_id.tolist() == here.context_id.tolist() == [3, 4]


def test_practice_does_not_shift_the_weights_of_the_contexts():
    """Practice on context 3 alone: four own samples of it and one of 4 weigh as much as one demonstration of each."""
    there, here = feed.aligned(rows([3, 4]), rows([3, 4, 3, 3, 3]), 0, 0, 0)
    assert there.context_id.tolist() == here.context_id.tolist() == [3, 4, 3, 3, 3]
    for side in (there, here):
        torch.testing.assert_close(side.weight, torch.tensor([0.25, 1.0, 0.25, 0.25, 0.25]).to(side.weight))


def test_own_samples_weigh_contexts_as_weighted_demonstrations_do():
    """Weights 20 and 1 on contexts 3 and 4: the own samples take them over."""
    demonstrations = replace(rows([3, 4]), weight=torch.tensor([20.0, 1.0]))
    _, here = feed.aligned(demonstrations, rows([4, 3]), 0, 0, 0)
    assert here.context_id.tolist() == [3, 4]
    assert here.weight.tolist() == [20.0, 1.0]


def test_where_no_context_is_met_twice_all_stand_for_one():
    """Each demonstration and each own sample has a partner, in turns."""
    there, here = feed.aligned(rows([0, 1]), rows([10, 11, 12, 13, 14]), 0, 0, 0)
    assert sorted(row_of(here)) == [0, 1, 2, 3, 4]
    assert sorted(Counter(row_of(there)).values()) == [2, 3]
    there, here = feed.aligned(rows([-1, -1, -1, -1]), rows([10, 11]), 0, 0, 0)
    assert row_of(there) == [0, 1, 2, 3]
    assert Counter(row_of(here)) == {0: 2, 1: 2}


@quick
@given(st.integers(1, 40), st.floats(0.01, 0.99), st.integers(0, 3))
def test_held_out_comparisons_are_set_aside_once_and_for_all(count, share, seed):
    data = compared(count)
    learn, aside = feed.held_out(data, share, seed)
    if count == 1:
        assert row_of(learn.first) == row_of(aside.first) == [0]
        return
    assert sorted(row_of(learn.first) + row_of(aside.first)) == list(range(count))
    assert len(aside) == min(max(1, round(share * count)), count - 1)
    assert torch.equal(aside.label, data.label[row_of(aside.first)])
    assert row_of(aside.first) == row_of(aside.second)
    assert row_of(feed.held_out(data, share, seed)[1].first) == row_of(aside.first)


def test_held_out_comparisons_depend_on_the_seed():
    assert len({tuple(row_of(feed.held_out(compared(30), 0.3, seed)[1].first)) for seed in range(5)}) == 5


def batches(demonstrations=None, own=None, preferences=None, turn=0, **changes):
    return list(feed.batches(demonstrations, own, preferences, phase(**changes), 0, 0, turn))


def test_whole_batches_hold_everything_every_time():
    demonstrations, own, preferences = rows([0, 1]), rows([0, 1]), compared(3)
    for size in (0, 3, 99):
        steps = batches(demonstrations, own, preferences, reward_steps=4, batch_size=size)
        assert len(steps) == 4
        for step in steps:
            assert step.demonstrations is demonstrations
            assert step.own is own
            assert step.preferences is preferences


@quick
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.integers(1, 9))
def test_batches_walk_through_the_data(count, num_preferences, size, steps):
    """Every batch is full, rows stay with their partners, and each row comes equally often, to within one."""
    data = rows(list(range(count))), rows(list(range(count))), compared(num_preferences)
    given_ = batches(*data, reward_steps=steps, batch_size=size)
    assert len(given_) == steps
    for step in given_:
        assert len(step.demonstrations) == min(size, count)
        assert len(step.preferences) == min(size, num_preferences)
        assert row_of(step.demonstrations) == row_of(step.own)
        assert row_of(step.preferences.first) == row_of(step.preferences.second)
        assert torch.equal(step.preferences.label, data[2].label[row_of(step.preferences.first)])
    for seen, total in (
        ([row for step in given_ for row in row_of(step.demonstrations)], count),
        ([row for step in given_ for row in row_of(step.preferences.first)], num_preferences),
    ):
        times = Counter(seen)
        assert max(times.values()) - min(times.get(row, 0) for row in range(total)) <= 1


def test_absent_parts_stay_absent_and_change_no_draw_of_the_others():
    demonstrations, preferences = rows(list(range(9))), compared(9)
    both = batches(demonstrations, None, preferences, batch_size=2, reward_steps=5)
    alone = batches(None, None, preferences, batch_size=2, reward_steps=5)
    assert all(step.demonstrations is None and step.own is None for step in alone)
    assert [row_of(step.preferences.first) for step in both] == [row_of(step.preferences.first) for step in alone]
    alone = batches(demonstrations, batch_size=2, reward_steps=5)
    assert all(step.preferences is None for step in alone)
    assert [row_of(step.demonstrations) for step in both] == [row_of(step.demonstrations) for step in alone]
    again = batches(demonstrations, batch_size=2, reward_steps=5, turn=1)
    assert [row_of(step.demonstrations) for step in again] != [row_of(step.demonstrations) for step in alone]


def numbered(lengths: list[int], context_id: list[int] | None = None) -> Trajectories:
    """Behaviours whose steps carry their own number."""
    count, longest = len(lengths), max(lengths)
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    return Trajectories(
        data={"step": torch.arange(longest).expand(count, -1) * mask},
        mask=mask,
        rewarded=mask,
        context_id=torch.tensor(context_id or [0] * count),
        weight=torch.ones(count),
        behaviour_log_prob=torch.zeros(count, longest),
        start_step=torch.zeros(count, dtype=torch.long),
        terminated=torch.zeros(count, dtype=torch.bool),
        truncated=torch.ones(count, dtype=torch.bool),
    )


def test_windows_lie_anywhere_within_their_behaviour() -> None:
    """Windows of 3 in behaviours of 5 and 2 steps: they begin at 0, 1 or 2 of the first; the second is given whole."""
    behaviours, draw, starts = numbered([5, 2]), torch.Generator().manual_seed(0), []
    for _ in range(60):
        cut = feed.window(behaviours, 3, draw)
        assert cut.mask.sum(1).tolist() == [3, 2]
        start = int(cut.start_step[0])
        assert cut.data["step"][0].tolist() == [start, start + 1, start + 2]
        assert int(cut.start_step[1]) == 0
        starts.append(start)
    assert {starts.count(k) > 8 for k in (0, 1, 2)} == {True}


def test_a_batch_can_hold_more_windows_than_there_are_behaviours() -> None:
    phase = Phase(name="it", demonstration="pairwise", segment=2, batch_size=6, reward_steps=3)
    shown, own = numbered([5, 5]), numbered([4, 4])
    for batch in feed.batches(shown, own, None, phase, 0, 0, 0):
        assert batch.demonstrations is not None
        assert batch.own is not None
        assert batch.demonstrations.mask.shape == batch.own.mask.shape == (6, 2)


def test_own_samples_weigh_contexts_as_the_demonstrations_do_without_being_paired() -> None:
    """Shown: context 0 twice, 1 once. Own samples: one of 0, four of 1, and one of 2, which nobody showed."""
    shown, own = numbered([1, 1, 1], [0, 0, 1]), numbered([1] * 6, [0, 1, 1, 1, 1, 2])
    weighed = feed.weighed(shown, own)
    assert weighed.context_id.tolist() == [0, 1, 1, 1, 1]
    assert weighed.weight.tolist() == [2.0, 0.25, 0.25, 0.25, 0.25]
