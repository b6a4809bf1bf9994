"""The feedback of a language task as the core's data: demonstrations, comparisons, and answers of whoever is asked."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

import torch
from torch import Generator, Tensor

from envs.labeller import LabellerConfig
from envs.language.people import ATTEMPTS, among, drawn, judge
from envs.language.task import LanguageTask
from llm.codec import Codec
from llm.config import SpeechConfig
from unified_irl.contracts import RewardFunction
from unified_irl.errors import UserError
from unified_irl.feedback import Demonstrations, Preferences, Provenance
from unified_irl.objectives import returns
from unified_irl.rows import Phase
from unified_irl.trajectories import Contexts, Trajectories

Texts = tuple[Sequence[str], Sequence[bool]]
Say = Callable[[Tensor, Generator], Texts]
"""Completions of prompts by somebody, and whether each was ended."""


def demonstrate(task: LanguageTask, codec: Codec, contexts: Contexts, count: int, draw: Generator) -> Demonstrations:
    prompts = drawn(among(task, "demonstrable"), count, draw)
    said = task.demonstrate(prompts, draw)
    maker = Provenance(maker=f"the demonstrator of {task.name}", source=task.name)
    return Demonstrations(
        trajectories=codec.trajectories(contexts[prompts], said, [True] * count),
        maker=torch.zeros(count, dtype=torch.long),
        makers=(maker,),
    )


def proposed(task: LanguageTask) -> Say:
    """The task's own people of mixed quality."""

    def say(prompts: Tensor, draw: Generator) -> Texts:
        return task.propose(prompts, draw), [True] * len(prompts)

    return say


def compare(
    task: LanguageTask, codec: Codec, contexts: Contexts, among_: Tensor, count: int, say: Say, who: str,
    config: SpeechConfig, draw: Generator,
) -> Preferences:  # fmt: skip
    """Two completions of each prompt, and the labeller's choice; what is not answered is asked about other prompts."""
    parts: list[Preferences] = []
    for _ in range(ATTEMPTS):
        missing = count - sum(map(len, parts))
        if missing == 0:
            return Preferences.cat(parts)
        prompts = drawn(among_, missing, draw)
        sides = [say(prompts, draw) for _ in range(2)]
        labels, answered = judge(task, prompts, sides[0], sides[1], config.labeller, draw)
        first, second = (codec.trajectories(contexts[prompts], *side) for side in sides)
        parts += [_preferences(first, second, labels, who, config.labeller)[answered]] if bool(answered.any()) else []
    raise UserError(
        f"Of {count} comparisons only {sum(map(len, parts))} were answered after {ATTEMPTS} attempts: completions look "
        "alike, or the labeller skips nearly all. Lower labeller.skip, or compare others (people.compared)."
    )


Choose = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Labels of pairs, told by the rows of their sides, and which pairs were answered at all."""


def ask(
    own: Trajectories, said: Sequence[Hashable], choose: Choose, reward: RewardFunction, count: int, phase: Phase,
    gamma: float, labeller: LabellerConfig, draw: Generator,
) -> Preferences | None:  # fmt: skip
    """Answers about pairs of the policy's own completions of one prompt; nobody compares what says the same."""
    if phase.query == "disagreement":
        raise UserError("The rewards of language have no members that could disagree; let query be uniform or entropy.")
    order = torch.randperm(len(own), generator=draw)
    order = order[own.context_id[order].argsort(stable=True)]
    left, right = order[:-1], order[1:]
    meet = [
        k
        for k, (i, j) in enumerate(zip(left.tolist(), right.tolist(), strict=True))
        if own.context_id[i] == own.context_id[j] and said[i] != said[j]
    ]
    if not meet:
        return None
    pairs = torch.tensor(meet)[torch.randperm(len(meet), generator=draw)]
    if phase.query == "entropy":
        with torch.no_grad():
            value = returns(reward(own).cpu(), own.discount(gamma))
        pairs = pairs[(value[left[pairs]] - value[right[pairs]]).abs().argsort(stable=True)]
    pairs = pairs[:count]
    labels, answered = choose(left[pairs], right[pairs])
    if not bool(answered.any()):
        return None
    own = replace(own, weight=torch.ones_like(own.weight))
    made = _preferences(own[left[pairs]], own[right[pairs]], labels, "the policy while learning", labeller)
    return made[answered]


def _preferences(
    first: Trajectories, second: Trajectories, labels: Tensor, who: str, labeller: LabellerConfig
) -> Preferences:
    return Preferences(
        first=first,
        second=second,
        label=labels,
        margin=torch.zeros_like(labels),
        maker=torch.zeros(len(labels), dtype=torch.long),
        makers=(Provenance(maker=who, labeller=labeller.describe(), source="language"),),
    )
