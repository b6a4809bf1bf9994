"""Log-probabilities without logits: against plain ones, by finite differences, in bfloat16, and what they cost."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from llm import log_prob
from llm.log_prob import logits, token_log_prob

torch.set_num_threads(1)

ROWS, WORDS, WIDTH = 23, 57, 16
WAYS = {"kept": {}, "one chunk again": {"KEPT_BYTES": 0}, "chunks": {"KEPT_BYTES": 0, "BLOCK_BYTES": 4 * 23 * 10}}
"""What is kept and how the vocabulary is cut; ten words of 23 rows are a block of the last one."""
ROUNDING = 2.0**-8
"""Relative error of a number rounded to bfloat16, at most, with room for one more rounding."""


@pytest.fixture(params=[(name, rows) for name in WAYS for rows in (1024, 23, 7)], ids=str)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way through the code: kept or not, one chunk or six, one block of rows or four."""
    name, rows = request.param
    for constant, value in (WAYS[name] | {"ROWS": rows}).items():
        monkeypatch.setattr(log_prob, constant, value)


def drawn(scale: float = 0.3, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states, weights, words and slopes."""
    draw = torch.Generator().manual_seed(0)
    hidden, weight = (scale * torch.randn(count, WIDTH, generator=draw) for count in (ROWS, WORDS))
    words = torch.randint(WORDS, (ROWS,), generator=draw)
    slope = torch.randn(ROWS, generator=draw)
    return hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), words, slope


def plainly(hidden: Tensor, weight: Tensor, words: Tensor, slope: Tensor) -> tuple[Tensor, ...]:
    """The log-softmax of all logits, and its gradients, in double precision."""
    exact = [one.detach().double().requires_grad_() for one in (hidden, weight)]
    said = (exact[0] @ exact[1].T).log_softmax(1).gather(1, words[:, None]).squeeze(1)
    return said.detach(), *torch.autograd.grad(said, exact, slope.double())


def test_two_words_by_hand() -> None:
    """Logits 0 and ln 3: the second word has probability ¾, and ∂ log π/∂h = w − E[w] = ln 3 − ¾ ln 3."""
    hidden = torch.ones(1, 1, requires_grad=True)
    weight = torch.tensor([[0.0], [math.log(3)]], requires_grad=True)
    said = token_log_prob(hidden, weight, torch.tensor([1]))
    said.sum().backward()
    assert said.item() == pytest.approx(math.log(0.75))
    assert hidden.grad is not None
    assert weight.grad is not None
    assert hidden.grad.item() == pytest.approx(math.log(3) / 4)
    assert weight.grad.flatten().tolist() == pytest.approx([-0.25, 0.25])


@pytest.mark.usefixtures("way")
def test_values_and_gradients_are_those_of_a_plain_softmax() -> None:
    hidden, weight, words, slope = drawn()
    said = token_log_prob(hidden, weight, words)
    exact = plainly(hidden, weight, words, slope)
    for ours, theirs in zip((said, *torch.autograd.grad(said, (hidden, weight), slope)), exact, strict=True):
        assert ours.dtype == torch.float32
        assert float((ours - theirs).detach().abs().max()) < 1e-6


@pytest.mark.usefixtures("way")
def test_gradients_are_finite_differences() -> None:
    """A step of 0.01 to either side; in float32 the difference is good to about four digits."""
    hidden, weight, words, slope = drawn()
    said = token_log_prob(hidden, weight, words)
    gradients = torch.autograd.grad(said, (hidden, weight), slope)
    draw = torch.Generator().manual_seed(1)
    for which in range(2):
        inputs = [hidden.detach(), weight.detach()]
        step = torch.randn(inputs[which].shape, generator=draw)
        sides = []
        for sign in (0.01, -0.01):
            moved = [one + sign * step if k == which else one for k, one in enumerate(inputs)]
            sides.append(float((token_log_prob(moved[0], moved[1], words) * slope).double().sum()))
        assert (sides[0] - sides[1]) / 0.02 == pytest.approx(float((gradients[which] * step).sum()), rel=2e-3)


@pytest.mark.usefixtures("way")
def test_huge_logits_stay_finite() -> None:
    """Logits up to thousands, of which float32 knows no exponential."""
    hidden, weight, words, slope = drawn(scale=20.0)
    said = token_log_prob(hidden, weight, words)
    exact = plainly(hidden, weight, words, slope)
    assert float((hidden @ weight.T).detach().abs().max()) > 1000.0
    for ours, theirs in zip((said, *torch.autograd.grad(said, (hidden, weight), slope)), exact, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-3)


def test_what_is_frozen_gets_no_gradient_and_the_others_the_same_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, words, slope = drawn()
    both = torch.autograd.grad(token_log_prob(hidden, weight, words), (hidden, weight), slope)
    for kept_bytes in (log_prob.KEPT_BYTES, 0):
        monkeypatch.setattr(log_prob, "KEPT_BYTES", kept_bytes)
        for moves, stays, expected in ((0, 1, both[0]), (1, 0, both[1])):
            given = [hidden.detach().clone(), weight.detach().clone()]
            given[moves].requires_grad_()
            token_log_prob(*given, words).backward(slope)
            assert given[stays].grad is None
            assert given[moves].grad is not None
            torch.testing.assert_close(given[moves].grad, expected)
    assert not token_log_prob(hidden.detach(), weight.detach(), words).requires_grad


def test_no_row_at_all_says_nothing() -> None:
    hidden, weight, words, _ = drawn()
    said = token_log_prob(hidden[:0], weight, words[:0])
    said.sum().backward()
    assert said.shape == (0,)
    assert weight.grad is not None
    assert not bool(weight.grad.any())


@pytest.mark.usefixtures("way")
def test_half_precision_is_summed_in_single_precision() -> None:
    """bfloat16 has 8 bits: logits of 50 rounded to them would be wrong by up to ⅛. The values are those of float32 to
    1e-4; gradients, of which every factor is rounded once and the sum once, to 2⁻⁸ of the largest."""
    hidden, weight, words, slope = drawn(scale=2.0, dtype=torch.bfloat16)
    said = token_log_prob(hidden, weight, words)
    exact = plainly(hidden, weight, words, slope)
    rounded = (hidden @ weight.T).detach().float().log_softmax(1).gather(1, words[:, None]).squeeze(1)
    assert said.dtype == torch.float32
    torch.testing.assert_close(said.double(), exact[0], rtol=0.0, atol=1e-4)
    assert float((rounded - exact[0]).abs().max()) > 0.02, "bfloat16 would have been good enough"
    for ours, theirs in zip(torch.autograd.grad(said, (hidden, weight), slope), exact[1:], strict=True):
        assert ours.dtype == torch.bfloat16
        assert float((ours - theirs).abs().max()) < ROUNDING * float(theirs.abs().max())


@pytest.mark.parametrize("kept_bytes", [log_prob.KEPT_BYTES, 0])
def test_where_products_are_in_half_precision_factors_are_rounded_and_sums_are_not(
    kept_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under autocast the values are those of the rounded factors, to 1e-4; the backward pass, outside of it, agrees."""
    monkeypatch.setattr(log_prob, "KEPT_BYTES", kept_bytes)
    hidden, weight, words, slope = drawn(scale=2.0)
    with torch.autocast("cpu", torch.bfloat16):
        said = token_log_prob(hidden, weight, words)
        everything = logits(hidden, weight)
    exact = plainly(hidden.bfloat16(), weight.bfloat16(), words, slope)
    torch.testing.assert_close(said.double(), exact[0], rtol=0.0, atol=1e-4)
    assert everything.dtype == torch.float32
    torch.testing.assert_close(everything.log_softmax(1).gather(1, words[:, None]).squeeze(1), said)
    for ours, theirs in zip(torch.autograd.grad(said, (hidden, weight), slope), exact[1:], strict=True):
        assert ours.dtype == torch.float32
        assert float((ours - theirs).abs().max()) < ROUNDING * float(theirs.abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_probability_is_above_one(dtype: torch.dtype) -> None:
    """The likeliest words of confident rows: what is left to the others vanishes beside rounding."""
    hidden, weight, _, _ = drawn(scale=4.0, dtype=dtype)
    said = token_log_prob(hidden, weight, (hidden @ weight.T).argmax(1))
    assert -1e-3 < float(said.detach().max()) < 1e-4


MEASURED = """
import json, torch
from llm.log_prob import token_log_prob

def status(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(name))

def grown(say):
    hidden.grad = weight.grad = None
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = status("VmRSS")
    say().sum().backward()
    return status("VmHWM") - before

torch.set_num_threads(1)
hidden, weight = (torch.randn(count, 64, requires_grad=True) for count in (512, 131072))
words = torch.randint(131072, (512,))
(hidden[:8] @ weight[:8].T).sum().backward()
ours = grown(lambda: token_log_prob(hidden, weight, words))
plain = grown(lambda: (hidden @ weight.T).log_softmax(1).gather(1, words[:, None]))
print(json.dumps([ours, plain]))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells a process its peak")
def test_a_large_vocabulary_takes_a_third_of_the_memory_at_most() -> None:
    """512 rows of 131,072 words: 256 MiB of logits, which a plain softmax holds three times on its way back. Ours holds
    32 MiB of gradient and a few blocks of 16."""
    said = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True).stdout
    ours, plain = json.loads(said)
    assert plain > 700 * 1024
    assert ours <= 0.35 * plain


@pytest.mark.gpu
def test_on_a_gpu_half_precision_says_the_same() -> None:
    hidden, weight, words, slope = (one.detach().cuda() for one in drawn(scale=2.0, dtype=torch.bfloat16))
    hidden.requires_grad_()
    weight.requires_grad_()
    said = token_log_prob(hidden, weight, words)
    exact = plainly(hidden.cpu(), weight.cpu(), words.cpu(), slope.cpu())
    torch.testing.assert_close(said.double().cpu(), exact[0], rtol=0.0, atol=1e-4)
    for ours, theirs in zip(torch.autograd.grad(said, (hidden, weight), slope), exact[1:], strict=True):
        assert float((ours.cpu() - theirs).abs().max()) < ROUNDING * float(theirs.abs().max())
