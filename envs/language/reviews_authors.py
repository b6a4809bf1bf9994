"""Who writes reviews: authors whose habits stay the same throughout a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from envs.language.reviews_grammar import (
    ADJECTIVES,
    ASPECTS,
    DEEDS,
    DEGREES,
    DISAGREEING,
    LINKS,
    MANY,
    NEGATIONS,
    OPENERS,
    PRODUCTS,
    VALUES,
    VERBS,
    Prompt,
    article,
)

TRAIT_SPREAD = 0.2
"""How far an author's mood and care lie from the common level (a standard deviation)."""
MOOD_SWING = 0.7
"""How far a sentence's polarity lies from the author's (a standard deviation, in grades)."""
BROKEN, STRAYING, ECHOING, PARROTING = 0.8, 0.5, 0.4, 0.5
"""How often an author without any care breaks a sentence, speaks of something foreign, says a sentence again, and uses
an adjective again. It falls with the square of care, so that most faults stand in the texts of a few."""

_DEGREES, _LINKS = tuple(DEGREES), tuple(LINKS.items())


@dataclass(frozen=True, slots=True)
class Author:
    """Somebody's habits."""

    mood: float
    """From 0, who hates everything, to 1, who loves it."""
    care: float
    """From 0 to 1: how seldom a sentence is broken, beside the question or a repetition."""
    loudness: float
    """Probability that a sentence ends with an exclamation mark."""
    patience: int
    """Sentences before the closing."""


def anybody(rng: Random, careful: bool = False) -> Author:
    """An author of a random level, by which mood and care rise together; or a careful one of any mood."""
    level = rng.random()
    mood = min(1.0, max(0.0, rng.gauss(level, TRAIT_SPREAD)))
    care = 1.0 if careful else min(1.0, max(0.0, rng.gauss(level, TRAIT_SPREAD)))
    return Author(mood, care, rng.choice((0.0, 0.1, 0.3, 0.7)), rng.choice((1, 2, 2, 3)))


class Draft:
    """A review that is being written."""

    def __init__(self, author: Author, prompt: Prompt, max_words: int, rng: Random) -> None:
        self.author, self.prompt, self.max_words, self.rng = author, prompt, max_words, rng
        self.words: list[str] = []
        self.said: list[list[str]] = []
        self.used: set[str] = set()
        self.adjective = ""
        self.plural = prompt.product in MANY
        self.pronoun = ("they", "them") if self.plural else ("it", "it")

    def write(self) -> str:
        author, rng = self.author, self.rng
        self.add(self.sentence(self.prompt.opening), len(self.prompt.opening))
        for _ in range(author.patience - 1):
            if self.careless(ECHOING):
                self.add(list(rng.choice(self.said)))
            else:
                self.add(self.sentence(()))
        if author.patience == 1 or rng.random() < 0.6:
            self.add(self.closing())
        return " ".join(self.words)

    def careless(self, rate: float) -> bool:
        return self.rng.random() < rate * (1.0 - self.author.care) ** 2

    def add(self, sentence: list[str], num_given: int = 0) -> None:
        """Say a sentence, whose first words are given, if there is room for it."""
        if self.careless(BROKEN):
            sentence = sentence[:num_given] + self.broken(sentence[num_given:])
        if len(self.words) + len(sentence) - num_given < self.max_words:
            self.said.append(sentence)
            self.words += sentence[num_given:]
            self.words.append("!" if self.rng.random() < self.author.loudness else ".")

    def broken(self, words: list[str]) -> list[str]:
        """A word goes missing, is doubled, changes places with the next, or no longer agrees with the others."""
        place, way = self.rng.randrange(len(words)), self.rng.random()
        wrong = [at for at, word in enumerate(words) if word in DISAGREEING]
        if way < 0.4 and wrong:
            at = self.rng.choice(wrong)
            return [*words[:at], DISAGREEING[words[at]], *words[at + 1 :]]
        if way < 0.6:
            return words[:place] + words[place + 1 :]
        if way < 0.8:
            return words[: place + 1] + words[place:]
        return [*words[:place], *reversed(words[place : place + 2]), *words[place + 2 :]]

    def aspect(self) -> str:
        if self.careless(STRAYING):
            return self.rng.choice(ASPECTS)
        if self.rng.random() < 0.6:
            return self.prompt.aspect
        return self.rng.choice(PRODUCTS[self.prompt.product])

    def sentence(self, opening: Sequence[str]) -> list[str]:
        """One sentence that begins like this, or any way if it is empty."""
        rng = self.rng
        if opening and opening[-1] in ("has", "have"):
            return [*opening, *self.part()]
        if opening and opening[-1] == self.prompt.aspect:
            return [*opening, self.link(opening[-1] in MANY), *self.sayings()]
        if opening:
            return [*opening, *self.sayings()]
        start = self.opener()
        way = rng.random()
        if way < 0.4:
            aspect = self.aspect()
            return [*start, "the", aspect, self.link(aspect in MANY), *self.sayings()]
        if way < 0.55:
            return [*start, *self.subject(), self.link(self.plural), *self.sayings()]
        if way < 0.75:
            return [*start, *self.subject(), "have" if self.plural else "has", *self.part()]
        return [*start, *self.feeling()]

    def opener(self) -> list[str]:
        way = self.rng.random()
        return [] if way < 0.8 else ["i", "think"] if way < 0.85 else [self.rng.choice(OPENERS)]

    def subject(self) -> list[str]:
        product = self.rng.choice(tuple(PRODUCTS)) if self.careless(STRAYING) else self.prompt.product
        if (product in MANY) != self.plural or self.rng.random() < 0.4:
            return [self.pronoun[0]]
        return ["these" if self.plural else "this", product]

    def link(self, plural: bool) -> str:
        pair = _LINKS[0] if self.rng.random() < 0.6 else self.rng.choice(_LINKS)
        return pair[plural]

    def sayings(self) -> list[str]:
        first, sign = self.saying()
        if self.rng.random() >= 0.25:
            return first
        second, other = self.saying()
        return [*first, "and" if sign == other else "but", *second]

    def saying(self, negatable: bool = True) -> tuple[list[str], bool]:
        """A few words of the author's mood, and whether they are praise."""
        rng, grade = self.rng, self.grade()
        negated = negatable and rng.random() < 0.15
        if not self.adjective or not self.careless(PARROTING):
            self.adjective = self.fresh(ADJECTIVES[-grade if negated else grade])
        degree = [rng.choice(_DEGREES)] if rng.random() < 0.4 else []
        negation = ["not" if rng.random() < 0.6 else rng.choice(NEGATIONS[1:])] if negated else []
        return [*negation, *degree, self.adjective], (VALUES[self.adjective] > 0) != negated

    def fresh(self, choices: Sequence[str]) -> str:
        """One of the words, and a new one if the author takes care."""
        word = self.rng.choice(choices)
        if word in self.used and self.rng.random() < self.author.care:
            word = self.rng.choice([one for one in choices if one not in self.used] or choices)
        self.used.add(word)
        return word

    def grade(self) -> int:
        polarity = self.rng.gauss(6.0 * self.author.mood - 3.0, MOOD_SWING)
        return max(1, min(3, round(abs(polarity)))) * (1 if polarity > 0 else -1)

    def part(self) -> list[str]:
        aspect, (words, _) = self.aspect(), self.saying(negatable=False)
        return [*words, aspect] if aspect in MANY else [article(words[0]), *words, aspect]

    def feeling(self) -> list[str]:
        rng, grade = self.rng, self.grade()
        negated = rng.random() < 0.15
        verb = self.fresh(VERBS[-grade if negated else grade])
        about = ["the", self.aspect()] if rng.random() < 0.75 else [self.pronoun[1]]
        return [
            "i" if rng.random() < 0.75 else "we",
            *(["do", "not"] if negated else []),
            *(["really"] if rng.random() < 0.3 else []),
            verb,
            *about,
        ]

    def closing(self) -> list[str]:
        rng, grade = self.rng, self.grade()
        negated = rng.random() < 0.15
        about = [self.pronoun[0], "are" if self.plural else "is"]
        start, negation = self.opener(), ["not"] if negated else []
        if rng.random() < 0.3:
            praised = (grade > 0) != negated
            return [
                *start,
                *about,
                *negation,
                *(["worth", "the", "money"] if praised else ["a", "waste", "of", "money"]),
            ]
        deed = DEEDS[-grade if negated else grade][0]
        who, when = "i" if rng.random() < 0.75 else "we", "would" if rng.random() < 0.6 else "will"
        return [*start, who, when, *negation, deed, self.pronoun[1]]
