"""A reward that is given, not learnt: what a judge says of an answer, or of each of its tokens.

Shape legend: B behaviours, T columns, N beginnings of answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from llm.config import RewardConfig
from llm.judges import Asked, Judge
from llm.reward import Scale
from llm.speech import in_passes
from unified_irl.contracts import State
from unified_irl.learnable import Untaught
from unified_irl.trajectories import Trajectories


class GivenReward(Untaught):
    """A judge's number at the end of an answer; or at every token what the judge's number changed by with it, which
    adds up to the same."""

    def __init__(
        self,
        judge: Judge,
        answers: Callable[[Trajectories], Asked],
        config: RewardConfig,
        tokens_per_pass: int,
    ) -> None:
        """`answers` gives the texts of behaviours."""
        self.judge, self.answers, self.config, self.tokens_per_pass = judge, answers, config, tokens_per_pass
        self.scale = Scale(config.normalise)
        self.refusal = refusal(config, "the method learns one")

    @torch.no_grad()
    def __call__(self, behaviours: Trajectories) -> Tensor:
        return in_passes(self._rewards, behaviours, self.tokens_per_pass, behaviours.mask.device)

    def _rewards(self, behaviours: Trajectories) -> Tensor:
        if self.config.level == "token":
            return self._by_token(behaviours)
        last_BT = behaviours.mask & (behaviours.mask.flip(1).cumsum(1).flip(1) == 1)
        return _laid(self._judged(behaviours), last_BT)

    def _by_token(self, behaviours: Trajectories) -> Tensor:
        """Of every beginning of an answer what the judge says of it, minus what it said of the one before."""
        row_N, column_N = behaviours.mask.nonzero(as_tuple=True)
        said_N = self._judged(_beginnings(behaviours, row_N, column_N))
        is_first_N = torch.ones_like(row_N, dtype=torch.bool)
        is_first_N[1:] = row_N[1:] != row_N[:-1]
        return _laid(said_N - torch.where(is_first_N, 0.0, said_N.roll(1)), behaviours.mask)

    def _judged(self, behaviours: Trajectories) -> Tensor:
        return torch.tensor(self.judge(self.answers(behaviours)), dtype=torch.float32)

    def for_policy(self) -> Callable[[Trajectories], Tensor]:
        return lambda behaviours: self.scale(self(behaviours), behaviours.rewarded)

    def state_dict(self) -> State:
        return {"scale": self.scale.state_dict()}

    def load_state_dict(self, state: State) -> None:
        self.scale.load_state_dict(state["scale"])


def refusal(config: RewardConfig, why: str) -> str:
    """What is said to methods that a given reward does not suit."""
    return (
        f"reward.given is '{config.given}', but {why}; take a method that climbs while it learns (aihf, ml-irl or rft) "
        "with --method.phases.0.reward-steps 0, or name no given reward."
    )


def _beginnings(behaviours: Trajectories, row_N: Tensor, column_N: Tensor) -> Trajectories:
    """Each of these rows up to and with one of its columns; what ends before its end has not been ended."""
    many = behaviours[row_N]
    mask = many.mask & (torch.arange(many.num_steps) <= column_N[:, None])
    is_whole_N = mask.sum(1) == many.mask.sum(1)
    return replace(many, mask=mask, rewarded=mask, terminated=many.terminated & is_whole_N)


def _laid(said_N: Tensor, where_BT: Tensor) -> Tensor:
    """float32[B, T]: one number for each place that is marked."""
    return torch.zeros(where_BT.shape).masked_scatter(where_BT, said_N)
