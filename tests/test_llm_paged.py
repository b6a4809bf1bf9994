"""What the paged engine says is what the native sampler says."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import chisquare
from speakers import END, LENGTH, PROMPT, VOCABULARY, model_of, same, sampled, says, speech
from transformers.generation.continuous_batching import cache

from llm import paged, sampler
from llm.roles import Whole


@pytest.mark.parametrize(("rows", "tokens_per_pass"), [(256, 1024), (5, 1024), (1, 1024), (5, 7)])
@pytest.mark.parametrize("kind", ["gpt-neox", "grouped"])
def test_greedy_is_native_and_log_probs_are_those_of_a_plain_forward(
    kind: str, rows: int, tokens_per_pass: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paged, "TOKENS_PER_PASS", tokens_per_pass)  # 7: most prompts are read in pieces
    role = Whole(model_of(kind))
    own, native = says(paged, role, rows=rows), says(sampler, role)
    assert same(own, native)
    assert torch.equal(own.ended_B, native.ended_B)
    torch.testing.assert_close(own.log_prob_BM, native.log_prob_BM, atol=1e-4, rtol=0.0)
    drawn = sampled(role)
    torch.testing.assert_close(speech(role).log_prob(drawn), drawn.behaviour_log_prob, atol=1e-4, rtol=0.0)
    assert 0 < int(drawn.terminated.sum()) < len(drawn)  # some ended, others were cut off
    new_B = drawn.mask.sum(1)
    last_B = drawn.data["token"].gather(1, (LENGTH + new_B - 1)[:, None])[:, 0]
    assert torch.equal(last_B == END, drawn.terminated)
    assert set(new_B[~drawn.terminated].tolist()) == {20}
    asked = torch.arange(30) < LENGTH[:, None]
    assert torch.equal(drawn.data["token"][:, :30] * asked, PROMPT)


def test_a_seed_says_the_same_again_copies_differ_and_nobody_else_s_random_numbers_are_touched() -> None:
    role = Whole(model_of("llama"))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (says(paged, role, seed, rows=4) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert same(first, again)
    assert not same(first, other)
    assert len({tuple(row.tolist()) for row in first.token_BM[2:5]}) == 3
    single = says(paged, role, 0, max_tokens=1)
    assert torch.equal(single.length_B, torch.ones(12, dtype=torch.long))
    assert torch.equal(single.ended_B, single.token_BM[:, 0] == END)


def test_frequencies_are_the_model_s_probabilities() -> None:
    """Of all words: nothing is cut off the tail."""
    model, count = model_of("gpt-neox"), 6000
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(0.3)
        expected = model(PROMPT[2:3, :5]).logits[0, -1].softmax(-1).double()
    prompts, lengths, seeds = PROMPT[2:3].expand(count, -1), LENGTH[2:3].expand(count), torch.arange(count)
    said = paged.complete(Whole(model), prompts, lengths, seed_B=seeds, max_tokens=1, end=END, rows=200)
    seen = said.token_BM[:, 0].bincount(minlength=VOCABULARY)
    assert float(expected.min()) * count > 5
    assert chisquare(seen, expected / expected.sum() * count).pvalue > 1e-3


def test_the_cache_has_room_for_those_who_take_part_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[cache.PagedAttentionCache] = []
    built = cache.PagedAttentionCache.__init__
    monkeypatch.setattr(
        cache.PagedAttentionCache, "__init__", lambda self, *a, **b: (made.append(self), built(self, *a, **b))[0]
    )
    says(paged, Whole(model_of("llama")), rows=3)
    assert 3 * 20 < made[0].max_tokens_read <= 3 * (30 + 20 + paged.PAGE)
    assert made[0].max_batch_tokens == int(LENGTH.sum())


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["gpt-neox", "grouped"])
def test_on_a_gpu_it_says_the_same(kind: str) -> None:
    here, there = Whole(model_of(kind)), Whole(model_of(kind).cuda())
    assert same(says(paged, there), says(paged, here))
    drawn, before = sampled(there), torch.cuda.get_rng_state()
    assert torch.equal(sampled(there).data["token"], drawn.data["token"])
    assert torch.equal(torch.cuda.get_rng_state(), before)
    torch.testing.assert_close(speech(there).log_prob(drawn).cpu(), drawn.behaviour_log_prob, atol=1e-4, rtol=0.0)
