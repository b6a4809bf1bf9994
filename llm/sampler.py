"""The native sampler: one pass over the prompts, then one token at a time into a cache that was laid out beforehand.

Every completion has a random stream of its own, a function of its seed and the position alone: what it says depends
neither on who is sampled beside it, nor on the device. Rows that are over are dropped, and prompts that occur several
times are read once.

Shape legend: B completions, U different prompts, P columns of prompts, M new tokens, V words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin

from llm.log_prob import logits
from llm.models import multiplies_in_half, must_fit
from llm.roles import Role, Whole, head_of, hidden_states
from unified_irl.errors import UserError

COMPACT_BELOW = 0.8
"""Finished rows are dropped once no more than this share is left."""


@dataclass(frozen=True)
class Completions:
    """What was said. Padding holds zeros."""

    token_BM: Tensor
    length_B: Tensor
    """Tokens, the end included where there is one."""
    ended_B: Tensor
    """Whether the last token is the end."""
    log_prob_BM: Tensor
    """Of every token, under the role that said it."""

    @classmethod
    def silent(cls, count: int, max_tokens: int) -> Completions:
        """Room for what will be said."""
        return cls(
            torch.zeros(count, max_tokens, dtype=torch.long),
            torch.zeros(count, dtype=torch.long),
            torch.zeros(count, dtype=torch.bool),
            torch.zeros(count, max_tokens),
        )

    @staticmethod
    def woven(shares: Sequence[Completions]) -> Completions:
        """Every n-th row from each of n shares, in turn."""
        if len(shares) == 1:
            return shares[0]
        place = [torch.arange(len(one.length_B)) * len(shares) + k for k, one in enumerate(shares)]
        order = torch.cat(place).argsort()
        parts = zip(*(vars(one).values() for one in shares), strict=True)
        return Completions(*(torch.cat(part)[order] for part in parts))

    def over(self, end: int) -> Completions:
        """The same, all said."""
        last_B = self.token_BM.gather(1, (self.length_B - 1)[:, None]).squeeze(1)
        return replace(self, ended_B=last_B == end)


@torch.no_grad()
def complete(
    role: Role,
    prompt_BP: Tensor,
    length_B: Tensor,
    *,
    seed_B: Tensor | None,
    max_tokens: int,
    end: int,
    rows: int = 256,
) -> Completions:
    """One completion of each prompt (tokens from the first column on); without seeds, the likeliest token each time."""
    must_fit(role.model, int(length_B.max()), max_tokens)
    said = Completions.silent(len(prompt_BP), max_tokens)
    with role.active(), sampling(role.model):
        for some in length_B.argsort(stable=True).split(rows):
            seed = None if seed_B is None else seed_B[some]
            for step, where, token, log_prob in _steps(role, prompt_BP[some], length_B[some], seed, max_tokens, end):
                said.token_BM[some[where], step] = token
                said.log_prob_BM[some[where], step] = log_prob
                said.length_B[some[where]] = step + 1
    return said.over(end)


@contextmanager
def sampling(model: PreTrainedModel) -> Iterator[None]:
    """The cache of keys and values is there in evaluation alone where activations are to be checkpointed."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _steps(
    role: Role, prompt: Tensor, length: Tensor, seed: Tensor | None, max_tokens: int, end: int
) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """For every new token: its number, the rows that still speak, what they say, and its log-probability."""
    device, body, head = role.model.device, role.body, head_of(role)
    unique, which = torch.unique(torch.cat([length[:, None], prompt], 1), dim=0, return_inverse=True)
    width = int(length.max())
    column = torch.arange(width)
    pad_U = width - unique[:, 0]
    token_UP = unique[:, 1:].gather(1, (column - pad_U[:, None]).clamp(min=0)).to(device)
    real_UP = (column >= pad_U[:, None]).to(device)
    cache = Cache(layers=[Slab(width + max_tokens) for _ in range(role.model.config.num_hidden_layers)])
    causal = torch.ones(width, width, dtype=torch.bool, device=device).tril()
    # Padding looks at itself, or its attention would be empty, and nothing at all is NaN.
    mask = (causal & real_UP[:, None, :]) | torch.eye(width, dtype=torch.bool, device=device)
    position = (column - pad_U[:, None]).clamp(min=0).to(device)
    hidden = _last_hidden(body, token_UP, mask[:, None], position, cache)

    rows, which = torch.arange(len(prompt)), which.to(device)
    for layer in cache.layers:
        layer.keep(which)
    hidden, position = hidden[which], position[which, -1]
    visible = torch.cat([real_UP[which], real_UP.new_ones(len(rows), max_tokens)], 1)[:, None, None]
    speaks = torch.ones(len(rows), dtype=torch.bool)
    for step in range(max_tokens):
        log_prob_BV = logits(hidden, head).log_softmax(-1)
        token = log_prob_BV.argmax(-1) if seed is None else _drawn(log_prob_BV, uniform(seed[rows], step).to(device))
        log_prob = log_prob_BV.gather(1, token[:, None]).squeeze(1).cpu()
        said = token.cpu()
        yield step, rows[speaks], said[speaks], log_prob[speaks]
        speaks &= said != end
        num_left = int(speaks.sum())
        if num_left == 0 or step == max_tokens - 1:
            return
        if num_left <= COMPACT_BELOW * len(rows):
            left = speaks.nonzero().squeeze(1)
            rows, speaks, left = rows[left], speaks[left], left.to(device)
            token, position, visible = token[left], position[left], visible[left]
            for layer in cache.layers:
                layer.keep(left)
        position = position + 1
        hidden = _last_hidden(body, token[:, None], visible[..., : width + step + 1], position[:, None], cache)


def _last_hidden(body: torch.nn.Module, token: Tensor, mask: Tensor, position: Tensor, cache: Cache) -> Tensor:
    answer = body(input_ids=token, attention_mask=mask, position_ids=position, past_key_values=cache, use_cache=True)
    hidden: Tensor = answer.last_hidden_state[:, -1]
    return hidden


class Slab(CacheLayerMixin):
    """Keys and values of one layer, in room that is there from the beginning."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.filled = size, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys, self.values = (
            one.new_empty(*one.shape[:2], self.size, one.shape[3]) for one in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        begin, self.filled = self.filled, self.filled + key_states.shape[2]
        assert self.keys is not None
        assert self.values is not None
        self.keys[:, :, begin : self.filled] = key_states
        self.values[:, :, begin : self.filled] = value_states
        return self.keys[:, :, : self.filled], self.values[:, :, : self.filled]

    def keep(self, rows: Tensor) -> None:
        """These rows alone, some of them perhaps several times."""
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old.new_empty(len(rows), *old.shape[1:])
            torch.index_select(old[:, :, : self.filled], 0, rows, out=new[:, :, : self.filled])
            setattr(self, name, new)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.filled + query_length, 0

    def get_seq_length(self) -> int:
        return self.filled

    def get_max_length(self) -> int:
        return self.size


def _drawn(log_prob_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """The word at which the cumulated probability passes the uniform number."""
    cumulated_BV = log_prob_BV.double().exp_().cumsum(-1)
    threshold_B1 = uniform_B[:, None] * cumulated_BV[:, -1:]
    return torch.searchsorted(cumulated_BV, threshold_B1, right=True).squeeze(1).clamp(max=log_prob_BV.shape[1] - 1)


@torch.no_grad()
def check_sampler(model: PreTrainedModel, where: str) -> None:
    """Whether a model says token by token, beside a longer prompt, what it says in one pass."""
    role, length_B = Whole(model), torch.tensor([4, 1])
    prompt_BP = torch.tensor([[1, 2, 3, 4], [5, 0, 0, 0]]) % model.config.vocab_size
    tolerance = 0.5 if multiplies_in_half(model) else 1e-2
    try:
        said = complete(role, prompt_BP, length_B, seed_B=None, max_tokens=3, end=-1)
        away = 0.0
        for row, length in enumerate(length_B.tolist()):
            token_1T = torch.cat([prompt_BP[row, :length], said.token_BM[row]])[None].to(model.device)
            with role.active(), sampling(model):
                hidden_TD = hidden_states(role, token_1T)[0, length - 1 : -1]
                everything = logits(hidden_TD, head_of(role)).log_softmax(-1)
            plain = everything.gather(1, token_1T[0, length:, None]).squeeze(1).cpu()
            away = max(away, float((plain - said.log_prob_BM[row]).abs().max()))
        why = "" if away <= tolerance else f"they differ by {away:.2g} nats"
    except (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        why = " ".join(str(error).split())[:200]
    if why:
        raise UserError(
            f"{where} does not say token by token, with keys and values kept, what it says in one pass ({why}); choose "
            "a model with plain attention and positions."
        )


def seeds(count: int, generator: Generator) -> Tensor:
    """long[B]: a seed for every completion."""
    return torch.randint(2**62, (count,), generator=generator)


def uniform(seed_B: Tensor, step: int) -> Tensor:
    """float64[B] in [0, 1): the number that the streams of these seeds hold at a position.

    The counter-based generator SplitMix64: the position times an odd constant, then two rounds of shifts and products,
    all modulo 2^64.
    """
    mixed_B = seed_B + _signed(0x9E3779B97F4A7C15 * (step + 1) % 2**64)
    mixed_B = (mixed_B ^ _shifted(mixed_B, 30)) * _signed(0xBF58476D1CE4E5B9)
    mixed_B = (mixed_B ^ _shifted(mixed_B, 27)) * _signed(0x94D049BB133111EB)
    mixed_B = mixed_B ^ _shifted(mixed_B, 31)
    return _shifted(mixed_B, 11).double() * 2.0**-53


def _signed(number: int) -> int:
    """The same 64 bits as a signed number."""
    return number - 2**64 if number >= 2**63 else number


def _shifted(number_B: Tensor, bits: int) -> Tensor:
    """A shift to the right that brings in zeros, whatever the sign."""
    return (number_B >> bits) & ((1 << (64 - bits)) - 1)
