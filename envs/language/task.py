"""What a language task is: words, prompts, a true reward, a demonstrator, and a corpus to learn the language from.

A text is words with single spaces between them, and a word is one token. What a model adds to that (padding, begin,
end) is no word: whether a completion was ended or cut off stands beside it. Texts may be empty. Everything here is a
function of its arguments and the generator; a task draws nothing of its own.

Shape legend: B completions, W words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Generator, Tensor


class Speaker(Protocol):
    """A policy as a task may ask it: the probability of every next word."""

    def log_next(self, prompts: Tensor, completions: Sequence[str]) -> Tensor:
        """float[B, T + 1, W + 1], T words in the longest completion: the log-probability of every word of the task
        before each word of a completion and after its last one; the last column is that of ending there. What a model
        thinks of tokens that are no words is left out. Beyond a completion's end stands anything finite."""
        ...


class LanguageTask(Protocol):
    """One language task."""

    name: str
    words: tuple[str, ...]
    """Everything that can be said, in a fixed order, without repetition."""
    prompts: tuple[str, ...]
    """Everything that can be asked; the number of a prompt is its context id. Where a prompt ends and a completion
    begins must be plain from the words, since a document of the corpus is one and the other."""
    num_shown: int
    """Prompts below this number may be demonstrated and compared; the others are kept for examinations. A task that
    covers different prompts by the two says so with `demonstrable` and `comparable`, each bool[P]."""
    max_words: int
    """A completion is cut off after this many words."""

    def corpus(self, count: int, draw: Generator) -> list[str]:
        """Documents of the language, each a prompt and a completion. What can be told of a whole document, its quality
        or where it leads, varies between documents and is the same throughout one of them. It does not depend on the
        task's seed, so that runs of all seeds share a base model."""
        ...

    def gold(self, prompts: Tensor, completions: Sequence[str], ended: Sequence[bool]) -> Tensor:
        """float64[B]: the true reward of each whole completion; words that the task does not know are faults like any
        other."""
        ...

    def demonstrate(self, prompts: Tensor, draw: Generator) -> list[str]:
        """A completion for each prompt, all of them ended, by the demonstrator that the settings describe."""
        ...

    def expert(self, prompts: Tensor, draw: Generator) -> list[str]:
        """The same by the best demonstrator there is: what a score of 1 is measured by."""
        ...

    def propose(self, prompts: Tensor, draw: Generator) -> list[str]:
        """Completions of mixed quality, for people to compare."""
        ...

    def felt(self, prompts: Tensor, completions: Sequence[str], ended: Sequence[bool]) -> Tensor:
        """float64[B]: what a labeller judges by: the true reward and the biases that the settings give them."""
        ...

    def examine(
        self, speaker: Speaker, prompts: Tensor, completions: Sequence[str], ended: Sequence[bool]
    ) -> dict[str, float]:
        """What only this task can say of a policy, which made these completions. May be empty."""
        ...
