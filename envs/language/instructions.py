"""Operations on short lists, some covered by demonstrations and some by comparisons.

A prompt is a list and up to three operations, as in "d a c b | reverse | drop b :"; they are carried out from left to
right, and the completion is the list they lead to, here "c a d". What a completion is worth:

    gold = ½ · agreement + ½ · carried − ½ · foreign − ¼ · [not ended]

- agreement: places that hold the right symbol, divided by those of the longer one of the completion and the answer.
- carried: the largest share of the operations that, carried out in their order and without the others, lead to exactly
  this completion; 0 where none do. So half a composed instruction, done properly, is worth something.
- foreign: the share of its words that are no symbols; they take up places like others.

So gold lies between −¾ and 1; an empty completion that is ended is worth 0, and only the answer, ended, is worth 1.
Leaving out any operation of a prompt, or several, leads to another list.

Whoever makes a mistake in an operation either leaves it out, or carries it out with one symbol changed, lost, or in its
neighbour's place. How often and in which of the two ways is the same throughout a text. The corpus holds all operations
and compositions, and depends neither on the task's seed nor on who demonstrates what: all runs share one base model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, cycle, permutations
from random import Random
from string import ascii_lowercase

import torch
from torch import Generator, Tensor

from envs.language.chance import fast
from envs.language.instructions_config import OPERATIONS, InstructionsConfig
from envs.language.task import Speaker
from unified_irl.errors import UserError

Symbols = tuple[str, ...]
Kind = tuple[str, ...]
"""The names of a prompt's operations, in order."""

DEEDS: dict[str, Callable[[Symbols, str], Symbols]] = {
    "reverse": lambda given, _: given[::-1],
    "rotate": lambda given, _: given[1:] + given[:1],
    "swap": lambda given, _: given[1:2] + given[:1] + given[2:],
    "double": lambda given, _: given[:1] + given,
    "shorten": lambda given, _: given[:-1],
    "drop": lambda given, symbol: tuple(one for one in given if one != symbol),
    "begin": lambda given, symbol: (symbol, *given),
    "end": lambda given, symbol: (*given, symbol),
}
"""Back to front; the first behind the last; the first two the other way round; the first twice; all but the last;
without a symbol; with a symbol before the others; with one behind them."""
LEVELS = (0.05, 0.35, 0.65, 0.95)
"""How competent authors are: the probability that they carry out an operation correctly."""
PARTS = {(True, False): "demonstrated_only", (False, True): "compared_only", (True, True): "both"}
"""The parts of an examination, by whether demonstrations cover all of a prompt's operations, and comparisons."""
PATIENCE = 30
"""Attempts at a prompt, on average, before there are taken to be no more of them."""


def carry_out(operations: Iterable[tuple[str, str]], given: Symbols) -> Symbols:
    for name, symbol in operations:
        given = DEEDS[name](given, symbol)
    return given


@dataclass(frozen=True, slots=True)
class Instruction:
    """A prompt and its answer."""

    operations: tuple[tuple[str, str], ...]
    """Names and their symbols, '' where there is none."""
    given: Symbols
    answer: Symbols
    carried: dict[Symbols, float]
    """The lists that some of the operations lead to, each with the largest share of them that does."""

    @property
    def text(self) -> str:
        asked = [f"{name} {symbol}" if symbol else name for name, symbol in self.operations]
        return f"{' | '.join([' '.join(self.given), *asked])} :"

    @property
    def kind(self) -> Kind:
        return tuple(name for name, _ in self.operations)

    def worth(self, said: Sequence[str], ended: bool, known: Sequence[str]) -> float:
        """The true reward (see above)."""
        right = sum(one == other for one, other in zip(said, self.answer, strict=False))
        agreement = right / max(len(said), len(self.answer))
        foreign = sum(word not in known for word in said) / max(1, len(said))
        return 0.5 * agreement + 0.5 * self.carried.get(tuple(said), 0.0) - 0.5 * foreign - 0.25 * (not ended)


def instruction(operations: tuple[tuple[str, str], ...], given: Symbols) -> Instruction | None:
    """These operations on this list; None where the answer does not need all of them."""
    carried: dict[Symbols, float] = {}
    for count in range(len(operations) + 1):
        for some in combinations(operations, count):
            answer = carry_out(some, given)
            needs_all = answer not in carried
            carried[answer] = count / len(operations)
    return Instruction(operations, given, answer, carried) if needs_all else None


def with_symbols(kind: Kind, given: Symbols, known: Symbols, rng: Random) -> tuple[tuple[str, str], ...]:
    """Operations on this list, with random symbols; what is dropped is in it."""
    choices = {"drop": given, "begin": known, "end": known}
    return tuple((name, rng.choice(choices[name]) if name in choices else "") for name in kind)


@dataclass(frozen=True, slots=True)
class Author:
    """Somebody's habits."""

    competence: float
    """Probability that an operation is carried out correctly."""
    skips: bool
    """Whether other operations are left out; otherwise they are carried out with a slip."""

    def answer(self, asked: Instruction, known: Symbols, rng: Random) -> str:
        said = asked.given
        for name, symbol in asked.operations:
            right = DEEDS[name](said, symbol) or said  # nobody is left with nothing after earlier slips
            if rng.random() >= self.competence:
                right = said if self.skips and said != right else slipped(right, known, rng)
            said = right
        return " ".join(said)


def slipped(right: Symbols, known: Symbols, rng: Random) -> Symbols:
    """With a symbol changed, lost, or in its neighbour's place."""
    way, place = rng.randrange(3), rng.randrange(len(right))
    before, after = right[:place], right[place + 1 :]
    if way == 0 and after and after[0] != right[place]:
        return (*before, after[0], right[place], *after[1:])
    if way == 1 and len(right) > 1:
        return before + after
    return (*before, rng.choice([one for one in known if one != right[place]]), *after)


class Instructions:
    """The task. The seed says which operations are covered by what, which pairs are kept apart, and which lists are
    shown."""

    name = "instructions"

    def __init__(self, config: InstructionsConfig, seed: int) -> None:
        self.config = config
        self.symbols: Symbols = tuple(ascii_lowercase[: config.num_symbols])
        self.words = (*OPERATIONS, *self.symbols, "|", ":")
        self.max_words, self.num_shown = config.max_words, config.num_shown
        rng = Random(seed)
        order = rng.sample(OPERATIONS, len(OPERATIONS))
        num_own = len(OPERATIONS) - round(config.overlap * len(OPERATIONS))
        num_first = (num_own + rng.randrange(2)) // 2  # where one is left over, either side may have it
        self.demonstrated_operations = _ordered(order[: len(order) - (num_own - num_first)])
        self.compared_operations = _ordered(order[num_first:])
        pairs = list(combinations(OPERATIONS, 2))
        kept = {frozenset(pair) for pair in rng.sample(pairs, round(config.kept_share * len(pairs)))}
        self.asked = self._prompts(kept, rng)
        self.prompts = tuple(one.text for one in self.asked)
        demonstrated, compared = (
            torch.tensor([set(one.kind) <= set(some) for one in self.asked])
            for some in (self.demonstrated_operations, self.compared_operations)
        )
        is_shown = torch.arange(len(self.asked)) < self.num_shown
        self.demonstrable = demonstrated & is_shown
        """bool[P]: prompts that may be demonstrated."""
        self.comparable = compared & is_shown
        """bool[P]: prompts that may be compared."""
        self._part = [
            "composed" if not self._together(one.kind, kept) else PARTS[bool(shows), bool(compares)]
            for one, shows, compares in zip(self.asked, demonstrated, compared, strict=True)
        ]

    def _together(self, kind: Kind, kept: set[frozenset[str]]) -> bool:
        """Whether these operations may be shown in one prompt."""
        covered = any(set(kind) <= set(some) for some in (self.demonstrated_operations, self.compared_operations))
        return covered and not any(frozenset(pair) in kept for pair in combinations(kind, 2))

    def _prompts(self, kept: set[frozenset[str]], rng: Random) -> list[Instruction]:
        """Those that may be shown, then the kept ones: other lists, half of them with compositions never shown."""
        config = self.config
        kinds = [list(permutations(OPERATIONS, count)) for count in range(1, config.most_composed + 1)]
        shown = [[kind for kind in same if self._together(kind, kept)] for same in kinds]
        apart = [[kind for kind in same if not self._together(kind, kept)] for same in kinds]
        first: dict[int, list[Symbols]] = {}
        other: dict[int, list[Symbols]] = {}
        for length in range(config.shortest, config.longest + 1):
            lists = list(permutations(self.symbols, length))
            rng.shuffle(lists)
            cut = min(len(lists) - 1, max(1, round(config.shown_share * len(lists))))
            first[length], other[length] = lists[:cut], lists[cut:]
        num_kept = config.num_prompts - self.num_shown
        num_apart = num_kept // 2 if any(apart) else 0
        kept_prompts = self._made(shown, other, num_kept - num_apart, rng) + self._made(apart, other, num_apart, rng)
        return self._made(shown, first, self.num_shown, rng) + kept_prompts

    def _made(
        self, kinds: list[list[Kind]], lists: dict[int, list[Symbols]], count: int, rng: Random
    ) -> list[Instruction]:
        """Different prompts with all numbers of operations, and all kinds of each, in turn."""
        made: dict[str, Instruction] = {}
        turns = cycle([cycle(rng.sample(same, len(same))) for same in kinds if same])
        lengths = tuple(lists)
        for _, turn in zip(range(PATIENCE * count), turns, strict=False):
            given = rng.choice(lists[rng.choice(lengths)])
            one = instruction(with_symbols(next(turn), given, self.symbols, rng), given)
            if one is not None:
                made[one.text] = one
            if len(made) == count:
                return list(made.values())
        if count:
            raise UserError(
                f"instructions: only {len(made)} of {count} prompts could be made without repeating one; lower "
                "num_prompts, or raise num_symbols or longest."
            )
        return []

    def corpus(self, count: int, draw: Generator) -> list[str]:
        rng, config = fast(draw), self.config
        documents = []
        while len(documents) < count:
            kind = tuple(rng.sample(OPERATIONS, rng.randint(1, config.most_composed)))
            given = tuple(rng.sample(self.symbols, rng.randint(config.shortest, config.longest)))
            one = instruction(with_symbols(kind, given, self.symbols, rng), given)
            if one is not None:
                documents.append(f"{one.text} {anybody(rng).answer(one, self.symbols, rng)}")
        return documents

    def gold(self, prompts: Tensor, completions: Sequence[str], ended: Sequence[bool]) -> Tensor:
        each = zip(self._asked(prompts), completions, ended, strict=True)
        worth = [one.worth(said.split(), bool(end), self.symbols) for one, said, end in each]
        return torch.tensor(worth, dtype=torch.float64)

    def demonstrate(self, prompts: Tensor, draw: Generator) -> list[str]:
        """By somebody who carries out each operation correctly with the probability `quality`."""
        return self._answers(prompts, draw, lambda rng: Author(self.config.quality, rng.random() < 0.5))

    def expert(self, prompts: Tensor, draw: Generator) -> list[str]:
        """Without a mistake."""
        return [" ".join(one.answer) for one in self._asked(prompts)]

    def propose(self, prompts: Tensor, draw: Generator) -> list[str]:
        """By the authors of the corpus."""
        return self._answers(prompts, draw, anybody)

    def felt(self, prompts: Tensor, completions: Sequence[str], ended: Sequence[bool]) -> Tensor:
        """float64[B]: the true reward, and something for every word."""
        length = torch.tensor([len(said.split()) for said in completions], dtype=torch.float64)
        return self.gold(prompts, completions, ended) + self.config.length_bias * length

    def examine(
        self, speaker: Speaker, prompts: Tensor, completions: Sequence[str], ended: Sequence[bool]
    ) -> dict[str, float]:
        """Shares of completions that are exactly right, and that are well-formed (symbols, at least one, and ended);
        the mean true reward by what covers a prompt's operations ("demonstrated_only", "compared_only", "both"), and
        on those whose operations are never shown together ("composed")."""
        gold = self.gold(prompts, completions, ended).tolist()
        columns: dict[str, list[float]] = {"exact": [], "format": []}
        for number, said, end, worth in zip(prompts.tolist(), completions, ended, gold, strict=True):
            words = said.split()
            columns["exact"].append(worth == 1.0)
            columns["format"].append(bool(words and end and set(words) <= set(self.symbols)))
            columns.setdefault(self._part[number], []).append(worth)
        return {name: sum(column) / len(column) for name, column in columns.items() if column}

    def _asked(self, prompts: Tensor) -> list[Instruction]:
        return [self.asked[number] for number in prompts.tolist()]

    def _answers(self, prompts: Tensor, draw: Generator, author: Callable[[Random], Author]) -> list[str]:
        rng = fast(draw)
        return [author(rng).answer(one, self.symbols, rng) for one in self._asked(prompts)]


def _ordered(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in OPERATIONS if name in names)


def anybody(rng: Random) -> Author:
    """An author of the corpus."""
    return Author(rng.choice(LEVELS), rng.random() < 0.5)
