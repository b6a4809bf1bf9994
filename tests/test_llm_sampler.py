"""The native sampler: what it says against plain passes, whoever is sampled beside it, and its random numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from language import FAMILIES, MANNER, counted, tiny
from scipy import stats
from speakers import CONTEXT, CONTEXTS, END, LENGTH, PROMPT, model_of, same, says
from torch import Tensor
from transformers import PreTrainedModel

from llm import sampler
from llm.config import ModelConfig
from llm.models import small_model
from llm.roles import Role, Whole
from llm.sampler import Completions, complete, uniform
from llm.sizes import Shape
from llm.speech import Speech
from unified_irl.errors import UserError

torch.set_num_threads(1)
KINDS = (*FAMILIES, "grouped", "gpt2")
"""One with fewer heads of keys, and one whose positions are numbered, where the others' are distances."""
SEEDS = torch.arange(100, 100 + len(LENGTH))


def said(role: Role, which: Tensor, **more: Any) -> Completions:
    """What is said to some of the prompts; each has its seed."""
    given: dict[str, Any] = {"seed_B": SEEDS[which], "max_tokens": 20, "end": END}
    return complete(role, PROMPT[which], LENGTH[which], **given | more)


def all_said(role: Role, **more: Any) -> Completions:
    return said(role, torch.arange(len(LENGTH)), **more)


@torch.no_grad()
def plain_greedy(model: PreTrainedModel, prompt: Tensor) -> tuple[list[int], list[float]]:
    """Every token by a pass over all of the text, alone and without a cache."""
    tokens, log_probs = prompt.tolist(), []
    while len(log_probs) < 20 and (not log_probs or tokens[-1] != END):
        log_prob = model(torch.tensor([tokens]), use_cache=False).logits[0, -1].log_softmax(-1)
        tokens.append(int(log_prob.argmax()))
        log_probs.append(float(log_prob.max()))
    return tokens[len(prompt) :], log_probs


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_tokens_are_those_of_plain_passes(kind: str) -> None:
    model = tiny(kind)
    own = says(sampler, Whole(model))
    for row, length in enumerate(LENGTH.tolist()):
        tokens, log_probs = plain_greedy(model, PROMPT[row, :length])
        number = int(own.length_B[row])
        assert own.token_BM[row, :number].tolist() == tokens
        assert own.log_prob_BM[row, :number].tolist() == pytest.approx(log_probs, abs=1e-4)
        assert bool(own.ended_B[row]) == (tokens[-1] == END)


@pytest.mark.parametrize("kind", KINDS)
def test_log_probs_of_samples_are_those_of_a_plain_pass(kind: str) -> None:
    model = tiny(kind)
    own = all_said(Whole(model), rows=5)
    for row, length in enumerate(LENGTH.tolist()):
        tokens = own.token_BM[row, : own.length_B[row]]
        everything = torch.cat([PROMPT[row, :length], tokens])[None]
        with torch.no_grad():
            log_prob = model(everything, use_cache=False).logits[0, length - 1 : -1].log_softmax(-1)
        expected = log_prob.gather(1, tokens[:, None]).squeeze(1)
        torch.testing.assert_close(own.log_prob_BM[row, : len(tokens)], expected, atol=1e-4, rtol=0.0)


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_completion_is_the_same_alone_in_any_batch_and_in_any_order(kind: str) -> None:
    role = Whole(model_of(kind))
    together = all_said(role)
    order = torch.randperm(len(LENGTH), generator=torch.Generator().manual_seed(2))
    batches = [order, order[:5], *torch.arange(len(LENGTH)).split(1)]
    for which, rows in [*((one, 256) for one in batches), *((order, number) for number in (1, 2, 5, 11))]:
        own = said(role, which, rows=rows)
        assert torch.equal(own.token_BM, together.token_BM[which])
        assert torch.equal(own.length_B, together.length_B[which])
        assert torch.equal(own.ended_B, together.ended_B[which])
        torch.testing.assert_close(own.log_prob_BM, together.log_prob_BM[which], atol=1e-5, rtol=0.0)


def test_copies_of_a_prompt_say_what_their_seeds_say() -> None:
    """Of rows that hold one prompt, those of different seeds differ, those of the same seed do not."""
    role, copies = Whole(model_of("llama")), torch.full((6,), 7)
    different = said(role, copies, seed_B=torch.tensor([1, 2, 3, 4, 5, 1]))
    assert len({tuple(row.tolist()) for row in different.token_BM}) == 5
    assert torch.equal(different.token_BM[0], different.token_BM[5])
    alike = said(role, copies, seed_B=None)
    assert len({tuple(row.tolist()) for row in alike.token_BM}) == 1


def test_prompts_that_occur_several_times_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows 2 to 4 hold one prompt, and so do rows 9 and 11: nine different ones."""
    with counted(sampler, "_last_hidden", monkeypatch) as calls:
        says(sampler, Whole(model_of("llama")))
    assert calls[0][1].shape == (9, 30)
    assert {len(call[1]) for call in calls[1:]} <= set(range(1, 13))
    assert all(call[1].shape[1] == 1 for call in calls[1:])


def test_what_stands_behind_a_prompt_is_not_read() -> None:
    role = Whole(model_of("qwen"))
    behind = torch.where(torch.arange(30) < LENGTH[:, None], PROMPT, 63)
    own = complete(role, behind, LENGTH, seed_B=SEEDS, max_tokens=20, end=END)
    assert same(own, all_said(role))


# Rows that are over


def test_finished_rows_are_dropped_and_it_makes_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a share of 1 rows go as soon as they are over, with 0 none ever does."""
    role, sizes, answers = Whole(model_of("gpt-neox")), {}, {}
    for share in (0.0, 0.8, 1.0):
        monkeypatch.setattr(sampler, "COMPACT_BELOW", share)
        with counted(sampler, "_last_hidden", monkeypatch) as calls:
            answers[share] = all_said(role)
        sizes[share] = [len(call[1]) for call in calls[1:]]
    length = answers[1.0].length_B
    assert len(length.unique()) > 3
    assert sizes[0.0] == [12] * 19
    assert sizes[1.0] == [int((length > step).sum()) for step in range(1, 20)]
    assert sum(sizes[1.0]) < sum(sizes[0.8]) < sum(sizes[0.0])
    for share in (0.0, 0.8):
        assert same(answers[share], answers[1.0])
        torch.testing.assert_close(answers[share].log_prob_BM, answers[1.0].log_prob_BM, atol=1e-5, rtol=0.0)


def test_a_row_that_is_over_keeps_what_it_said() -> None:
    """Zeros behind the end, and nothing before it that depends on how long others go on."""
    role = Whole(model_of("mistral"))
    long = all_said(role)
    for row, number in enumerate(long.length_B.tolist()):
        assert not bool(long.token_BM[row, number:].any())
        assert not bool(long.log_prob_BM[row, number:].any())
        assert END not in long.token_BM[row, : number - 1].tolist()
        assert bool(long.ended_B[row]) == (int(long.token_BM[row, number - 1]) == END)
        assert bool(long.ended_B[row]) or number == 20
    short = all_said(role, max_tokens=4)
    assert torch.equal(short.token_BM, long.token_BM[:, :4])
    assert torch.equal(short.length_B, long.length_B.clamp(max=4))
    assert torch.equal(short.ended_B, long.ended_B & (long.length_B <= 4))


def test_it_stops_when_all_are_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the likeliest first word as the end, one pass over the prompt is all there is."""
    role = Whole(model_of("llama"))
    first = int(said(role, torch.tensor([3]), seed_B=None).token_BM[0, 0])
    with counted(sampler, "_last_hidden", monkeypatch) as calls:
        own = said(role, torch.tensor([3]), seed_B=None, end=first)
    assert len(calls) == 1
    assert own.length_B.tolist() == [1]
    assert own.ended_B.tolist() == [True]


def test_a_prompt_that_leaves_no_room_is_refused() -> None:
    role = Whole(model_of("llama"))
    assert all_said(role, max_tokens=CONTEXT - 30).token_BM.shape == (12, 34)
    with pytest.raises(UserError, match=r"A prompt of 30 tokens with 35 to come does not fit .* of 64; shorten"):
        all_said(role, max_tokens=CONTEXT - 30 + 1)


@pytest.mark.parametrize("kind", FAMILIES)
def test_activations_that_are_not_kept_change_nothing(kind: str) -> None:
    """Models that compute activations twice are in training mode, where there is no cache; it is found again after."""
    model = model_of(kind, gradient_checkpointing=True)
    assert model.training
    assert same(all_said(Whole(model)), all_said(Whole(model_of(kind))))
    assert model.training


@pytest.mark.parametrize("kind", FAMILIES)
def test_in_half_precision_it_acts_as_it_speaks(kind: str) -> None:
    """Batches of other sizes round otherwise: here by less than 0.05 nats for any token, by 0.005 on average."""
    speech = Speech(Whole(model_of(kind, dtype="bfloat16")), MANNER)
    own = speech.sample(CONTEXTS, torch.Generator().manual_seed(3))
    away = (speech.log_prob(own) - own.behaviour_log_prob)[own.mask].detach()
    assert 0.0 < float(away.abs().max()) < 0.05
    assert float(away.abs().mean()) < 0.005
    exact = Speech(Whole(model_of(kind)), replace(MANNER, rows=1)).log_prob(own)
    assert float((exact.detach() - own.behaviour_log_prob)[own.mask].abs().mean()) < 0.02


# Random numbers


@pytest.mark.parametrize(
    ("seed", "numbers"),
    [
        (0, [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC, 0x1B39896A51A8749B]),
        (1234567, [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]),
    ],
)
def test_random_numbers_are_those_of_splitmix64(seed: int, numbers: list[int]) -> None:
    """The published outputs of the generator, of which the upper 53 bits make a number in [0, 1)."""
    own = [uniform(torch.tensor([seed]), step).item() for step in range(len(numbers))]
    assert own == [(number >> 11) / 2**53 for number in numbers]


def test_random_numbers_are_even_along_seeds_and_positions() -> None:
    """Kolmogorov-Smirnov along 20,000 neighbouring seeds, 20,000 drawn ones and 2,000 positions; no correlation between
    neighbours, which for n pairs of independent numbers stays within 4/√n."""
    near, drawn = torch.arange(20_000), sampler.seeds(20_000, torch.Generator().manual_seed(0))
    assert bool(((drawn >= 0) & (drawn < 2**62)).all())
    along = torch.cat([uniform(torch.tensor([7]), step) for step in range(2000)])
    for numbers in (uniform(near, 0), uniform(near, 1), uniform(drawn, 5), along):
        assert 0.0 <= float(numbers.min()) < float(numbers.max()) < 1.0
        assert stats.kstest(numbers.numpy(), "uniform").pvalue > 1e-3
        assert abs(float(torch.corrcoef(torch.stack([numbers[:-1], numbers[1:]]))[0, 1])) < 4 / math.sqrt(len(numbers))
    assert abs(float(torch.corrcoef(torch.stack([uniform(near, 0), uniform(near, 1)]))[0, 1])) < 4 / math.sqrt(20_000)


def test_a_number_picks_the_word_whose_share_it_falls_into() -> None:
    """Shares of ½, 0, ¼ and ¼; what cannot be said is never said."""
    log_prob = torch.tensor([0.5, 0.0, 0.25, 0.25]).log().expand(6, -1)
    numbers = torch.tensor([0.0, 0.4999, 0.5001, 0.7499, 0.7501, 1 - 2.0**-53], dtype=torch.float64)
    assert sampler._drawn(log_prob, numbers).tolist() == [0, 0, 2, 2, 3, 3]
    assert sampler._drawn(log_prob[:1].roll(-1), numbers[:1]).tolist() == [1], "shares of 0, ¼, ¼, ½ at 0"


def test_frequencies_are_probabilities() -> None:
    """Two words of a vocabulary of 8, one of which is the end, make 1 + 7·8 completions: chi-square over 20,000."""
    shape, count = Shape(layers=1, width=16, heads=2, documents=1, passes=1), 20_000
    model = small_model(ModelConfig(), shape, 8, 16)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(10.0)
        prompt = torch.tensor([1, 5, 3])
        pairs = torch.cartesian_prod(torch.arange(8), torch.arange(8))
        log_prob = model(torch.cat([prompt.expand(64, -1), pairs], 1)).logits[:, 2:4].double().log_softmax(-1)
    first, second = (log_prob[:, k].gather(1, pairs[:, k : k + 1]).exp().squeeze(1) for k in range(2))
    expected = {tuple(pair): float(p) for pair, p in zip(pairs.tolist(), first * second, strict=True) if pair[0] != END}
    expected[(END, 0)] = float(first[pairs[:, 0] == END][0])
    assert sum(expected.values()) == pytest.approx(1.0)

    own = complete(
        Whole(model), prompt.expand(count, -1), torch.full((count,), 3), seed_B=torch.arange(count), max_tokens=2,
        end=END, rows=4096,
    )  # fmt: skip
    rows, seen = own.token_BM.unique(dim=0, return_counts=True)
    frequencies = dict.fromkeys(expected, 0) | dict(zip(map(tuple, rows.tolist()), seen.tolist(), strict=True))
    assert set(frequencies) == set(expected)
    assert min(expected.values()) * count > 5
    assert max(expected.values()) > 3 * min(expected.values())
    assert stats.chisquare([frequencies[one] for one in expected], [p * count for p in expected.values()]).pvalue > 1e-3
