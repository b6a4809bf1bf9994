"""Answers of a named task in its own tokens, as files that its methods read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from experiments.labelling.book import Answer
from experiments.labelling.material import Comparison
from llm.domain import LanguageDomain
from unified_irl.feedback import Demonstrations, Provenance
from unified_irl.feedback_files import load_preferences, save_demonstrations, save_preferences

UNKNOWN_WORDS = 3
"""How many are named to whoever wrote them."""


def write_compared(candidates_file: Path, path: Path, made: Sequence[Comparison]) -> list[str]:
    """The comparisons that were made, of all that might have been; a sentence on the file."""
    if not made:
        path.unlink(missing_ok=True)
        return []
    candidates = load_preferences(candidates_file)
    raters = tuple(dict.fromkeys(one.rater for one in made))
    answered = replace(
        candidates[torch.tensor([one.pair for one in made])],
        label=torch.tensor([one.label for one in made]),
        maker=torch.tensor([raters.index(one.rater) for one in made]),
        makers=tuple(replace(candidates.makers[0], labeller=rater, source="label") for rater in raters),
    )
    save_preferences(path, answered)
    return [f"{len(made)} comparisons, ties included, in {path}"]


class Spelling:
    """What can be written in a task, and how it is kept."""

    def __init__(self, domain: LanguageDomain) -> None:
        self.domain = domain
        self.words = domain.task.words

    def fault(self, text: str) -> str:
        """Why this is no completion, in a sentence; empty where it is one."""
        task, said = self.domain.task, text.split()
        if len(said) > task.max_words:
            return f"That is {len(said)} words; {task.name} has room for {task.max_words}."
        if unknown := [word for word in said if word not in task.words]:
            named = ", ".join(f"'{word}'" for word in unknown[:UNKNOWN_WORDS])
            return f"{task.name} has no word {named}; use the words below."
        return ""

    def write_shown(self, path: Path, written: Sequence[Answer], contexts: Sequence[int]) -> list[str]:
        """The answers to these prompts as demonstrations; a sentence on the file."""
        if not written:
            path.unlink(missing_ok=True)
            return []
        raters = tuple(dict.fromkeys(one.rater for one in written))
        said = [" ".join(one.text.split()) for one in written]
        prompts = self.domain.contexts[torch.tensor(contexts)]
        shown = Demonstrations(
            trajectories=self.domain.codec.trajectories(prompts, said, [True] * len(said)),
            maker=torch.tensor([raters.index(one.rater) for one in written]),
            makers=tuple(Provenance(maker=rater, source="label") for rater in raters),
        )
        save_demonstrations(path, shown)
        return [f"{len(written)} demonstrations in {path}"]
