"""Shapes, padding, joining, cutting and discounting of behaviours; and what is said of bad ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unified_irl.errors import UserError
from unified_irl.objectives import returns
from unified_irl.trajectories import PER_BEHAVIOUR, PER_STEP, Contexts, Trajectories

torch.set_num_threads(1)
quick = settings(deadline=None, max_examples=40)


def walks(lengths: list[int], extra: int = 0, absorbed: int = 0) -> Trajectories:
    """Behaviours of the given lengths whose data count 1, 2, 3, … over all real steps; the last `absorbed` steps of
    each (if it has more) are rewarded but not chosen; `extra` steps of padding."""
    num_steps = max(lengths) + extra
    position, length = torch.arange(num_steps), torch.tensor(lengths)[:, None]
    rewarded = position < length
    mask = rewarded & ((position < length - absorbed) | (position == 0))
    number = (rewarded.flatten().cumsum(0).view(rewarded.shape) * rewarded).double()
    return Trajectories(
        data={"number": number, "pair": torch.stack([number, -number], -1), "count": number.long()},
        mask=mask,
        rewarded=rewarded,
        context_id=torch.arange(len(lengths)) + 10,
        weight=torch.arange(1.0, len(lengths) + 1, dtype=torch.float64),
        behaviour_log_prob=-number * mask,
        start_step=torch.zeros(len(lengths), dtype=torch.long),
        terminated=torch.arange(len(lengths)) % 2 == 0,
        truncated=torch.arange(len(lengths)) % 2 == 1,
    )


def fields_of(one: Trajectories) -> dict[str, Tensor]:
    return {**one.data, **{name: getattr(one, name) for name in PER_STEP + PER_BEHAVIOUR}}


def same(one: Trajectories, other: Trajectories) -> bool:
    ours, theirs = fields_of(one), fields_of(other)
    return ours.keys() == theirs.keys() and all(
        ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name]) for name in ours
    )


lengths = st.lists(st.integers(1, 6), min_size=1, max_size=5)


@quick
@given(lengths, st.integers(0, 4), st.integers(0, 2))
def test_padding_adds_nothing(sizes, extra, absorbed):
    """Padded behaviours are valid, hold zeros behind their end, and have the same returns."""
    plain = walks(sizes, absorbed=absorbed)
    grown = plain.padded(plain.num_steps + extra)
    assert same(grown, walks(sizes, extra, absorbed))
    assert grown.validated("grown") is grown
    assert len(grown) == len(sizes)
    assert grown.num_steps == max(sizes) + extra
    for value in fields_of(grown).values():
        if value.dim() > 1:
            assert not value[:, plain.num_steps :].any()
    for gamma in (1.0, 0.5):
        gains = [returns(one.data["number"], one.discount(gamma)) for one in (plain, grown)]
        assert torch.equal(*gains)
    assert plain.padded(plain.num_steps) is plain


def test_padding_never_shrinks():
    with pytest.raises(AssertionError, match="cannot pad 3 steps to 2"):
        walks([3]).padded(2)


@quick
@given(st.lists(lengths, min_size=1, max_size=3))
def test_joining_keeps_every_behaviour_in_order(groups):
    parts = [walks(sizes, extra=number) for number, sizes in enumerate(groups)]
    whole = Trajectories.cat(parts)
    assert whole.num_steps == max(part.num_steps for part in parts)
    assert len(whole) == sum(len(part) for part in parts)
    assert whole.validated("whole") is whole
    begin = 0
    for part in parts:
        assert same(whole[begin : begin + len(part)], part.padded(whole.num_steps))
        begin += len(part)


@quick
@given(lengths, st.data())
def test_indices_choose_rows(sizes, data):
    one = walks(sizes)
    picked = data.draw(st.lists(st.integers(0, len(sizes) - 1), min_size=1, max_size=6))
    chosen = one[torch.tensor(picked)]
    assert chosen.context_id.tolist() == [10 + row for row in picked]
    for row, index in enumerate(picked):
        assert same(chosen[row : row + 1], one[index : index + 1])
    assert same(one[one.context_id >= 0], one)
    assert same(one.to("cpu"), one)
    assert same(Trajectories(**one.state_dict()), one)


@quick
@given(lengths, st.integers(0, 2), st.floats(0.1, 1.0))
def test_discount_counts_rewarded_steps(sizes, absorbed, gamma):
    """γ^t at the t-th rewarded step, whether chosen or not; zero in the padding."""
    one = walks(sizes, extra=1, absorbed=absorbed)
    discount = one.discount(gamma)
    assert discount.dtype == one.weight.dtype
    for row, length in enumerate(sizes):
        expected = [gamma**step for step in range(length)] + [0.0] * (one.num_steps - length)
        assert discount[row].tolist() == pytest.approx(expected)


def test_discount_starts_at_the_first_rewarded_step():
    """A prompt of two steps without reward does not discount what follows: 0, 0, 1, ½, ¼."""
    one = walks([5])
    one = replace(one, rewarded=torch.tensor([[False, False, True, True, True]]))
    assert one.discount(0.5).tolist() == [[0.0, 0.0, 1.0, 0.5, 0.25]]
    assert one.discount(1.0).tolist() == [[0.0, 0.0, 1.0, 1.0, 1.0]]


@quick
@given(lengths, st.integers(1, 7), st.data())
def test_segments_are_windows(sizes, num_steps, data):
    one = walks(sizes, absorbed=1)
    start = [data.draw(st.integers(0, length - 1)) for length in sizes]
    cut = one.segment(torch.tensor(start), num_steps)
    assert cut.num_steps == num_steps
    assert cut.validated("cut") is cut
    for row, (begin, length) in enumerate(zip(start, sizes, strict=True)):
        there = [number.item() for number in one.data["number"][row, begin : min(begin + num_steps, length)]]
        padding = [0.0] * (num_steps - len(there))
        assert cut.data["number"][row].tolist() == there + padding
        assert cut.data["pair"][row, :, 1].tolist() == [-number for number in there] + padding
        assert cut.data["count"].dtype == torch.long
        assert cut.rewarded[row].tolist() == [True] * len(there) + [False] * len(padding)
        assert cut.mask[row, : len(there)].tolist() == one.mask[row, begin : begin + len(there)].tolist()
        reaches_end = begin + num_steps >= length
        assert bool(cut.terminated[row]) == (bool(one.terminated[row]) and reaches_end)
        assert bool(cut.truncated[row]) == (bool(one.truncated[row]) and reaches_end)
    assert cut.start_step.tolist() == start
    assert torch.equal(cut.context_id, one.context_id)
    assert torch.equal(cut.weight, one.weight)


@quick
@given(st.integers(2, 6), st.data())
def test_segments_of_segments_remember_the_time(length, data):
    """Cutting twice is cutting once: [a, …) then [b, …) is [a + b, …)."""
    first = data.draw(st.integers(0, length - 2))
    second = data.draw(st.integers(0, length - 1 - first))
    one = walks([length])
    twice = one.segment(torch.tensor([first]), length - first).segment(torch.tensor([second]), 2)
    once = one.segment(torch.tensor([first + second]), 2)
    assert same(twice, once)


def test_segments_discount_from_their_own_start():
    cut = walks([4]).segment(torch.tensor([2]), 2)
    assert cut.discount(0.5).tolist() == [[1.0, 0.5]]


def test_contexts_are_chosen_like_rows():
    contexts = Contexts(ids=torch.arange(3), data={"start": torch.tensor([5, 6, 7])})
    assert len(contexts) == 3
    assert contexts[torch.tensor([2, 0])].data["start"].tolist() == [7, 5]
    assert contexts[1:].ids.tolist() == [1, 2]


def test_good_behaviours_are_good():
    one = walks([3, 1], extra=1, absorbed=1)
    assert one.validated("walks") is one


NAN, INF = float("nan"), float("inf")
BAD: list[tuple[str, Any, str]] = [
    ("mask", torch.ones(2, dtype=torch.bool), "things: 'mask' has shape [2]; expected [behaviours, steps]."),
    (
        "rewarded",
        torch.ones(2, 3, dtype=torch.bool),
        "things: 'rewarded' has shape [2, 3]; expected [2, 4] like 'mask'.",
    ),
    (
        "rewarded",
        torch.ones(2, 4, 1, dtype=torch.bool),
        "things: 'rewarded' has shape [2, 4, 1]; expected [2, 4] like 'mask'.",
    ),
    ("behaviour_log_prob", torch.zeros(4), "things: 'behaviour_log_prob' has shape [4]; expected [2, 4] like 'mask'."),
    ("data", {"x": torch.zeros(3, 4)}, "things: 'x' has shape [3, 4]; expected [2, 4, ...] like 'mask'."),
    ("data", {"x": torch.zeros(())}, "things: 'x' has shape []; expected [2, 4, ...] like 'mask'."),
    ("weight", torch.ones(3), "things: 'weight' has shape [3]; expected [2], one entry per behaviour."),
    ("context_id", torch.zeros(2, 1), "things: 'context_id' has shape [2, 1]; expected [2], one entry per behaviour."),
    (
        "rewarded",
        torch.tensor([[True, True, True, False], [False] * 4]),
        "things: a behaviour in it has no step; expected at least one behaviour of at least one step.",
    ),
    (
        "rewarded",
        torch.tensor([[True, True, False, False], [True, False, False, False]]),
        "things: a step is chosen ('mask') but not 'rewarded'; every chosen step must be rewarded.",
    ),
    ("mask", torch.zeros(2, 4), "things: 'mask' holds torch.float32; expected true or false."),
    (
        "terminated",
        torch.zeros(2, dtype=torch.uint8),
        "things: 'terminated' holds torch.uint8; expected true or false.",
    ),
    ("context_id", torch.zeros(2), "things: 'context_id' holds torch.float32; expected 64-bit integers."),
    ("start_step", torch.zeros(2), "things: 'start_step' holds torch.float32; expected 64-bit integers."),
    ("weight", torch.ones(2, dtype=torch.long), "things: 'weight' holds torch.int64; expected floats."),
    (
        "weight",
        torch.tensor([NAN, INF]),
        "things: 'weight' holds NaN or infinite numbers in 2 behaviours; remove or repair them.",
    ),
    (
        "behaviour_log_prob",
        torch.tensor([[0.0, -INF, NAN, 0.0], [0.0] * 4]),
        "things: 'behaviour_log_prob' holds NaN or infinite numbers in 1 behaviours; remove or repair them.",
    ),
    (
        "data",
        {"x": torch.full((2, 4, 2), NAN)},
        "things: 'x' holds NaN or infinite numbers in 2 behaviours; remove or repair them.",
    ),
    (
        "weight",
        torch.tensor([1.0, -0.5]),
        "things: 'weight' holds negative numbers; weights say how much a behaviour counts, 0 or more.",
    ),
    (
        "weight",
        torch.zeros(2),
        "things: 'weight' holds only zeros; weights say how much a behaviour counts, 0 or more.",
    ),
    (
        "start_step",
        torch.tensor([0, -1]),
        "things: 'start_step' holds negative numbers; expected the time of the first step, 0 or more.",
    ),
]


@pytest.mark.parametrize(("name", "value", "sentence"), BAD)
def test_bad_behaviours_get_a_sentence(name: str, value: Any, sentence: str):
    good = walks([3, 1], extra=1)
    with pytest.raises(UserError) as caught:
        replace(good, **{name: value}).validated("things")
    assert str(caught.value) == sentence


def test_no_behaviours_get_a_sentence():
    with pytest.raises(UserError, match=r"^things: it holds no behaviour; expected at least one behaviour of at least"):
        walks([3, 1])[:0].validated("things")
