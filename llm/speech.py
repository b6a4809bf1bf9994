"""How a role speaks: completions of prompts, and the probability of given ones.

Shape legend: B behaviours, T columns of prompt and completion.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor

from llm import sampler
from llm.codec import joined
from llm.log_prob import token_log_prob
from llm.roles import Role, head_of, hidden_states
from unified_irl import parallel
from unified_irl.contracts import State
from unified_irl.trajectories import Contexts, Trajectories

Complete = Callable[..., sampler.Completions]


@dataclass(frozen=True, kw_only=True)
class Manner:
    """What all roles of a domain have in common."""

    end: int
    """The token that ends a completion."""
    max_tokens: int
    """Tokens of a completion, its end included."""
    rows: int
    """Completions sampled at a time."""
    tokens_per_pass: int
    """Tokens of a pass without gradient."""
    complete: Complete = sampler.complete
    """The engine that samples."""


class Speech:
    """A sampler of the core, made of a role."""

    def __init__(self, role: Role, manner: Manner) -> None:
        self.role, self.manner = role, manner

    def sample(self, contexts: Contexts, generator: Generator) -> Trajectories:
        return self.completed(contexts, sampler.seeds(len(contexts), generator))

    def greedy(self, contexts: Contexts) -> Trajectories:
        """The likeliest token each time."""
        return self.completed(contexts, None)

    @torch.no_grad()
    def completed(self, contexts: Contexts, seed_B: Tensor | None) -> Trajectories:
        """What is said in each context; where several processes are at work, each says a share of it."""
        manner, mine = self.manner, parallel.world().share(len(contexts))
        said = sampler.Completions.silent(0, manner.max_tokens)
        if self.role.wanted(len(mine) > 0):
            with self.role.active():
                if len(mine):
                    said = manner.complete(
                        self.role, contexts.data["token"][mine], contexts.data["length"][mine],
                        seed_B=None if seed_B is None else seed_B[mine],
                        max_tokens=manner.max_tokens, end=manner.end, rows=manner.rows,
                    )  # fmt: skip
        return joined(contexts, sampler.Completions.woven(parallel.gather(said)))

    def log_prob(self, behaviours: Trajectories) -> Tensor:
        if not self.role.parameters() or not torch.is_grad_enabled():
            return self._still_log_prob(behaviours)
        with self.role.active():
            return log_prob(self.role, behaviours)

    @torch.no_grad()
    def _still_log_prob(self, behaviours: Trajectories) -> Tensor:
        """The same without a gradient."""
        role = self.role
        with role.active():
            return in_passes(partial(log_prob, role), behaviours, self.manner.tokens_per_pass, role.model.device)

    def state_dict(self) -> State:
        return {"weights": self.role.weights()}

    def load_state_dict(self, state: State) -> None:
        self.role.load(state["weights"])


def lengths(behaviours: Trajectories) -> Tensor:
    """long[B]: the column after the last one that counts."""
    column = torch.arange(1, behaviours.num_steps + 1, device=behaviours.mask.device)
    return (behaviours.rewarded * column).amax(1)


def in_passes(
    said: Callable[[Trajectories], Tensor], behaviours: Trajectories, num_tokens: int, device: torch.device
) -> Tensor:
    """float32[B, T]: what is said of all rows, asked of so many of like length at a time, by whoever is there."""
    answer, world = torch.zeros(behaviours.mask.shape, device=device), parallel.world()
    for some in itertools.islice(passes(behaviours, num_tokens), world.rank, None, world.size):
        answer[some.to(device)] = said(behaviours[some].to(device))
    parallel.add_up([answer])
    return answer


def passes(behaviours: Trajectories, num_tokens: int) -> Iterator[Tensor]:
    """Rows by their lengths, so many at a time that padded they are at most `num_tokens` tokens."""
    length = lengths(behaviours).cpu()
    order = length.argsort(stable=True)
    begin = 0
    while begin < len(order):
        end = begin + 1
        while end < len(order) and (end + 1 - begin) * int(length[order[end]]) <= num_tokens:
            end += 1
        yield order[begin:end]
        begin = end


def log_prob(role: Role, behaviours: Trajectories) -> Tensor:
    """float32[B, T]: log π of every chosen token given all before it; the role has to be active.

    Rows begin in the first column and nobody sees what comes later, so neither a mask nor positions are needed.
    """
    mask_BT = behaviours.mask.clone()
    mask_BT[:, 0] = False  # nothing is said before the first token
    longest = int(lengths(behaviours).max())
    token_BT = behaviours.data["token"][:, :longest]
    hidden_BTD = hidden_states(role, token_BT[:, :-1])
    chosen = mask_BT[:, 1:longest]
    said_N = token_log_prob(hidden_BTD[chosen], head_of(role), token_BT[:, 1:][chosen])
    return torch.zeros(mask_BT.shape, device=token_BT.device).masked_scatter(mask_BT, said_N)
