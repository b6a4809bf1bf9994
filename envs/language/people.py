"""The people of a language task: who shows completions, and who compares them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from envs.labeller import LabellerConfig, label
from envs.language.task import LanguageTask

ATTEMPTS = 20
"""Rounds of asking again about pairs that were skipped or looked the same."""


def among(task: LanguageTask, name: str) -> Tensor:
    """long[P]: the prompts that may be demonstrated ('demonstrable') or compared ('comparable')."""
    allowed = getattr(task, name, None)
    if allowed is None:
        return torch.arange(task.num_shown)
    numbers: Tensor = allowed.nonzero().squeeze(1)
    return numbers


def drawn(prompts: Tensor, count: int, draw: Generator) -> Tensor:
    """`count` of these prompts; each once before any comes twice."""
    times = -(-count // len(prompts))
    return torch.cat([prompts[torch.randperm(len(prompts), generator=draw)] for _ in range(times)])[:count]


def judge(
    task: LanguageTask,
    prompts: Tensor,
    first: tuple[Sequence[str], Sequence[bool]],
    second: tuple[Sequence[str], Sequence[bool]],
    labeller: LabellerConfig,
    draw: Generator,
) -> tuple[Tensor, Tensor]:
    """Labels and who was answered at all. Nobody is asked to compare what looks the same on both sides."""
    felt = [task.felt(prompts, *side) for side in (first, second)]
    labels, answered = label(felt[0], felt[1], labeller, draw)
    differ = torch.tensor(
        [one != other for one, other in zip(zip(*first, strict=True), zip(*second, strict=True), strict=True)]
    )
    return labels.float(), answered & differ
