"""Product reviews: a style that can be told from a few comparisons, and over-done by whoever learnt too little of it.

A prompt names a product and one of its aspects, and has written up to four words of the review. What a review is worth
is in `reviews_judge`, the language in `reviews_grammar`, and who writes it in `reviews_authors`.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import torch
from torch import Generator, Tensor

from envs.language.chance import fast
from envs.language.reviews_authors import Draft, anybody
from envs.language.reviews_config import ReviewsConfig
from envs.language.reviews_grammar import WORDS, Prompt, every_prompt
from envs.language.reviews_judge import Parts, judge
from envs.language.task import Speaker


class Reviews:
    """The task; the seed says which prompts are shown."""

    def __init__(self, config: ReviewsConfig, seed: int) -> None:
        self.config = config
        self.name = "reviews"
        self.words = WORDS
        self.about = every_prompt()
        Random(seed).shuffle(self.about)
        self.prompts = tuple(prompt.text for prompt in self.about)
        self.num_shown = min(max(1, round(config.shown_share * len(self.about))), len(self.about) - 1)
        self.max_words = config.max_words

    def corpus(self, count: int, draw: Generator) -> list[str]:
        rng = fast(draw)
        # In their first order, not the seed's: all runs share the base model that reads this.
        asked = rng.choices(every_prompt(), k=count)
        return [f"{prompt.text} {self._anything(prompt, rng)}" for prompt in asked]

    def gold(self, prompts: Tensor, completions: Sequence[str], ended: Sequence[bool]) -> Tensor:
        worth = [parts.worth(self.config.soft_limit) for parts in self._parts(prompts, completions, ended)]
        return torch.tensor(worth, dtype=torch.float64)

    def demonstrate(self, prompts: Tensor, draw: Generator) -> list[str]:
        rng, config = fast(draw), self.config
        return [
            self._best(prompt, config.best_of, rng) if rng.random() < config.quality else self._anything(prompt, rng)
            for prompt in self._asked(prompts)
        ]

    def expert(self, prompts: Tensor, draw: Generator) -> list[str]:
        rng = fast(draw)
        return [self._best(prompt, self.config.expert_best_of, rng) for prompt in self._asked(prompts)]

    def propose(self, prompts: Tensor, draw: Generator) -> list[str]:
        rng = fast(draw)
        return [self._anything(prompt, rng) for prompt in self._asked(prompts)]

    def felt(self, prompts: Tensor, completions: Sequence[str], ended: Sequence[bool]) -> Tensor:
        config = self.config
        felt = [
            parts.worth(config.soft_limit)
            + config.length_bias * parts.num_words
            + config.exclamation_bias * parts.num_exclamations
            for parts in self._parts(prompts, completions, ended)
        ]
        return torch.tensor(felt, dtype=torch.float64)

    def examine(
        self, speaker: Speaker, prompts: Tensor, completions: Sequence[str], ended: Sequence[bool]
    ) -> dict[str, float]:
        """What the true reward is made of, on average, and the praise that a shallow judge would count."""
        parts = self._parts(prompts, completions, ended)
        columns = {
            "sentiment": [one.sentiment for one in parts],
            "praise": [one.praise for one in parts],
            "relevance": [one.relevance for one in parts],
            "grammatical": [one.grammatical for one in parts],
            "repetition": [one.repeats for one in parts],
            "length": [one.num_words for one in parts],
            "exclamations": [one.num_exclamations for one in parts],
            "ended": [one.ended for one in parts],
        }
        return {name: sum(column) / len(column) for name, column in columns.items() if column}

    def _asked(self, prompts: Tensor) -> list[Prompt]:
        return [self.about[number] for number in prompts.tolist()]

    def _parts(self, prompts: Tensor, completions: Sequence[str], ended: Sequence[bool]) -> list[Parts]:
        each = zip(self._asked(prompts), completions, ended, strict=True)
        return [judge(prompt, completion.split(), bool(end)) for prompt, completion, end in each]

    def _anything(self, prompt: Prompt, rng: Random) -> str:
        return Draft(anybody(rng), prompt, self.max_words, rng).write()

    def _best(self, prompt: Prompt, num_drafts: int, rng: Random) -> str:
        """The best of what careful authors of any mood have to say."""
        drafts = [Draft(anybody(rng, careful=True), prompt, self.max_words, rng).write() for _ in range(num_drafts)]
        return max(drafts, key=lambda draft: judge(prompt, draft.split(), True).worth(self.config.soft_limit))
