"""What is measured of a policy and a reward of language: under the true reward, against the start, and on fresh
comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from llm.codec import Codec
from llm.log_prob import logits
from llm.roles import head_of, hidden_states
from llm.speech import Speech
from unified_irl.contracts import RewardFunction
from unified_irl.feedback import Preferences
from unified_irl.objectives import returns
from unified_irl.trajectories import Contexts, Trajectories

NUM_BINS = 10
"""Bins of confidence by which calibration is judged."""
NEWTON_STEPS = 25


def win_rate(own: Tensor, other: Tensor) -> float:
    """Share of prompts on which the own completion is the better one; a tie counts half."""
    return float((0.5 + 0.5 * (own - other).sign()).mean())


def length_controlled(own: Tensor, other: Tensor, longer_by: Tensor) -> float:
    """The win-rate at equal lengths: the intercept of a logistic regression of wins on the difference in length."""
    won = (0.5 + 0.5 * (own - other).sign()).double()
    spread = longer_by.double().std()
    if not spread > 0:
        return float(won.mean())
    inputs = torch.stack([torch.ones_like(won), longer_by.double() / spread], 1)
    ridge = torch.diag(torch.tensor([1e-3, 0.1], dtype=torch.float64))  # lengths may separate wins from losses
    weight = torch.zeros(2, dtype=torch.float64)
    for _ in range(NEWTON_STEPS):
        chance = torch.sigmoid(inputs @ weight)
        slope = inputs.T @ (chance - won) + ridge @ weight
        curve = (inputs * (chance * (1 - chance))[:, None]).T @ inputs + ridge
        weight = weight - torch.linalg.solve(curve, slope)
    return float(torch.sigmoid(weight[0]))


@torch.no_grad()
def on_comparisons(reward: RewardFunction, fresh: Preferences, sharpness: float) -> tuple[float, float]:
    """Accuracy of the reward on comparisons nobody learnt from (a tie counts half), and how far its confidence is from
    its accuracy: the expected calibration error."""
    first, second = (returns(reward(side).cpu(), side.discount(1.0)) for side in (fresh.first, fresh.second))
    delta = first - second
    agreement = 0.5 * (1.0 + (fresh.label - 0.5).sign() * delta.sign())
    confidence = torch.sigmoid(sharpness * delta.abs())
    bins = ((confidence - 0.5) * 2 * NUM_BINS).long().clamp(max=NUM_BINS - 1)
    error = 0.0
    for number in bins.unique():
        inside = bins == number
        error += float(inside.float().mean() * (agreement[inside].mean() - confidence[inside].mean()).abs())
    return float(agreement.mean()), error


def rank_correlation(one: Tensor, other: Tensor) -> float:
    """Spearman's; zero where one side is constant."""
    if float(one.std()) == 0.0 or float(other.std()) == 0.0:
        return 0.0
    return float(stats.spearmanr(np.asarray(one), np.asarray(other)).statistic)


@dataclass(frozen=True)
class WordSpeaker:
    """A role whose every word is one token, as a task asks it."""

    speech: Speech
    codec: Codec
    contexts: Contexts
    columns: Tensor
    """The tokens of the task's words, and the end."""

    @torch.no_grad()
    def log_next(self, prompts: Tensor, completions: Sequence[str]) -> Tensor:
        role = self.speech.role
        said = [self.codec.completion(text, ended=False) for text in completions]
        start_B = self.contexts.data["length"][prompts]
        most = max(map(len, said))
        token_BT = torch.zeros(len(said), int(start_B.max()) + most, dtype=torch.long)
        asked_BP = self.contexts.data["token"][prompts][:, : token_BT.shape[1]]
        token_BT[:, : asked_BP.shape[1]] = asked_BP
        for row, start, words in zip(token_BT, start_B.tolist(), said, strict=True):
            row[start : start + len(words)] = torch.tensor(words, dtype=torch.long)
        place_BT = start_B[:, None] - 1 + torch.arange(most + 1)
        with role.active():
            hidden = hidden_states(role, token_BT.to(role.model.device))
            place = place_BT.clamp(max=hidden.shape[1] - 1).to(hidden.device)
            picked = hidden.gather(1, place[..., None].expand(-1, -1, hidden.shape[2]))
            log_prob = logits(picked.flatten(0, 1), head_of(role)).log_softmax(-1).unflatten(0, place.shape)
        return log_prob[..., self.columns.to(log_prob.device)].double().cpu()


def word_columns(codec: Codec, words: Sequence[str]) -> Tensor | None:
    """The token of every word and of the end; None where the tokenizer cuts words into pieces."""
    tokens = [codec.completion(word, ended=False) for word in words]
    if any(len(one) != 1 for one in tokens) or len({one[0] for one in tokens}) < len(words):
        return None
    return torch.tensor([*(one[0] for one in tokens), codec.end])


def mean_kl(policy: Speech, reference: Speech, own: Trajectories) -> float:
    """k1: the mean over the policy's own completions of log π/π_ref, in nats."""
    with torch.no_grad():
        return float((policy.log_prob(own) - reference.log_prob(own)).sum(1).mean())
