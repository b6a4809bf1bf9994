"""A walker of the exact world as somebody who speaks: what a language model that has learnt perfectly would say.

Shape legend: B completions, T decisions, H horizon, G goals, N nodes, A actions. V columns of next words: the words,
then ending.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from envs.language.walks_text import WalksText
from envs.walks.graph import IMPOSSIBLE


class WalkerSpeaker:
    """A speaker whose next words have exactly the probabilities of a walker of the exact world. After a fault and at
    the horizon, where a walker has nothing to decide, it ends."""

    def __init__(self, task: WalksText, log_policy_HGNA: Tensor) -> None:
        self.task, self.log_policy_HGNA = task, log_policy_HGNA

    def log_next(self, prompts: Tensor, completions: Sequence[str]) -> Tensor:
        """float[B, T + 1, V]."""
        task = self.task
        told = task.read(prompts, completions, [True] * len(completions))
        num_decisions = told.node_BT.shape[1]
        policy_BTA = self.log_policy_HGNA[torch.arange(num_decisions), told.goal_B[:, None], told.node_BT]
        spoken_BTV = policy_BTA.new_full((*told.node_BT.shape, task.end + 2), IMPOSSIBLE)
        spoken_BTV.scatter_(-1, task.column_NA[told.node_BT], policy_BTA)
        longest = max(len(completion.split()) for completion in completions)
        log_BTV = policy_BTA.new_full((len(completions), longest + 1, task.end + 1), IMPOSSIBLE)
        log_BTV[..., task.end] = 0.0
        log_BTV[:, :num_decisions][told.made_BT] = spoken_BTV[..., : task.end + 1][told.made_BT]
        return log_BTV
