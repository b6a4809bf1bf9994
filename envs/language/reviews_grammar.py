"""The language of reviews: its words, which sentences are well formed, and what they say about what.

A sentence is checked by the kinds of its words. A kind is called by one of its words, so a form reads like the
sentences it allows: "the battery is very good" stands for every singular part, every verb like "is" and so on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


def each(words: str) -> tuple[str, ...]:
    return tuple(words.split())


PRODUCTS: dict[str, tuple[str, ...]] = {
    "laptop": ("battery", "screen", "keys", "hinge", "speed"),
    "phone": ("battery", "screen", "buttons", "case", "speed"),
    "camera": ("battery", "lens", "buttons", "strap", "pictures"),
    "watch": ("strap", "dial", "alarm", "hands", "case"),
    "kettle": ("lid", "handle", "spout", "cord", "noise"),
    "tent": ("poles", "pegs", "zips", "fabric", "weight"),
    "jacket": ("zips", "fabric", "pockets", "lining", "colour"),
    "guitar": ("strings", "neck", "tone", "finish", "weight"),
    "bicycle": ("brakes", "gears", "frame", "saddle", "weight"),
    "headphones": ("sound", "cushions", "cord", "buttons", "battery"),
    "boots": ("soles", "laces", "lining", "fit", "colour"),
    "speakers": ("sound", "bass", "cord", "finish", "volume"),
}
"""The aspects of each product."""
MANY = frozenset(
    each(
        "headphones boots speakers keys buttons pictures hands poles pegs zips pockets strings brakes gears "
        "cushions soles laces"
    )
)
"""Nouns that are plural."""
ASPECTS = tuple(dict.fromkeys(aspect for aspects in PRODUCTS.values() for aspect in aspects))

ADJECTIVES: dict[int, tuple[str, ...]] = {
    grade: each(words)
    for grade, words in (
        (3, "superb flawless brilliant perfect magnificent excellent outstanding"),
        (2, "great lovely impressive delightful terrific admirable splendid"),
        (1, "good decent nice pleasant fine adequate solid"),
        (-1, "weak dull clumsy mediocre plain underwhelming flimsy"),
        (-2, "bad poor shoddy ugly disappointing inferior nasty"),
        (-3, "awful terrible dreadful abysmal horrible atrocious hopeless"),
    )
}
VERBS: dict[int, tuple[str, ...]] = {
    3: ("love", "adore"), 2: ("enjoy", "admire"), 1: ("like", "trust"),
    -1: ("dislike", "distrust"), -2: ("resent", "regret"), -3: ("hate", "loathe"),
}  # fmt: skip
DEEDS: dict[int, tuple[str, ...]] = {
    3: ("recommend",), 2: ("buy",), 1: ("keep",), -1: ("hide",), -2: ("return",), -3: ("avoid",),
}  # fmt: skip
"""What one would do with a product."""
VALUES = {"worth": 2, "waste": -3}
VALUES |= {word: grade for table in (ADJECTIVES, VERBS, DEEDS) for grade, some in table.items() for word in some}
"""The polarity of every word that has one."""
DEGREES = {
    "slightly": 0.5, "fairly": 0.75, "rather": 0.75, "really": 1.5, "very": 1.5, "truly": 1.5,
    "extremely": 2.0, "incredibly": 2.0, "utterly": 2.0,
}  # fmt: skip
"""What a degree multiplies the polarity of the next word by."""
NEGATIONS = ("not", "never", "hardly")
NEGATED = -0.5
"""What a negation multiplies it by: "not superb" is mild blame, "not awful" mild praise."""
OPENERS = ("honestly", "overall", "frankly", "clearly")
LINKS = {"is": "are", "looks": "look", "feels": "feel", "seems": "seem"}
MARKS = (".", "!")
DISAGREEING = {**LINKS, "this": "these", "a": "an", "has": "have", "it": "they"}
DISAGREEING |= {other: one for one, other in DISAGREEING.items()}
"""Words that break a sentence when they stand for each other."""
SMALL = each("the this these a an it they them i we has have do think would will and but money of :")
WORDS: tuple[str, ...] = (*MARKS, *SMALL, *LINKS, *LINKS.values(), *NEGATIONS, *DEGREES, *OPENERS, *VALUES, *PRODUCTS,
                          *ASPECTS)  # fmt: skip


def article(following: str) -> str:
    return "an" if following[0] in "aeiou" else "a"


def kind_of(word: str) -> str:
    """The word that this one may be replaced by without breaking any sentence."""
    if word in ASPECTS:
        return "keys" if word in MANY else "battery"
    if word in PRODUCTS:
        return "boots" if word in MANY else "laptop"
    for kind, alike in (("is", tuple(LINKS)), ("are", tuple(LINKS.values())), ("never", NEGATIONS[1:]),
                        ("honestly", OPENERS), ("love", sum(VERBS.values(), ())),
                        ("recommend", sum(DEEDS.values(), ()))):  # fmt: skip
        if word in alike:
            return kind
    if word in DEGREES:
        return "extremely" if article(word) == "an" else word if word == "really" else "very"
    if word in sum(ADJECTIVES.values(), ()):
        return "excellent" if article(word) == "an" else "good"
    return word


KINDS = {word: kind_of(word) for word in WORDS}

OPENING = "(honestly |i think )?"
GOOD = "(good |excellent )"
SAID = f"(not |never )?(very |really |extremely )?{GOOD}"
SAYINGS = f"{SAID}((and |but ){SAID})?"
A_GOOD = f"(a (good |(very |really ){GOOD})|an (excellent |extremely {GOOD}))"
A_PART = f"({A_GOOD}battery |(very |really |extremely )?{GOOD}keys )"
PRODUCT = "(it |them |this laptop |these boots )"
FORMS = re.compile(
    f"{OPENING}("
    f"(the battery |this laptop |it )is {SAYINGS}|(the keys |these boots |they )are {SAYINGS}|"
    f"(this laptop |it )has {A_PART}|(these boots |they )have {A_PART}|"
    f"(i |we )(do not )?(really )?love ({PRODUCT}|the battery |the keys ))"
)
CLOSINGS = re.compile(
    f"{OPENING}("
    f"(i |we )(would |will )(not )?recommend {PRODUCT}|"
    "(it is |they are )((not )?worth the money |(not )?a waste of money ))"
)


@dataclass(frozen=True)
class Prompt:
    """What a review is asked to be about, and how it begins."""

    product: str
    aspect: str
    opening: tuple[str, ...]
    """The first words of the review."""

    @property
    def text(self) -> str:
        return " ".join((self.product, self.aspect, ":", *self.opening))


def every_prompt() -> list[Prompt]:
    prompts = []
    for product, aspects in PRODUCTS.items():
        owner = ("these", product, "have") if product in MANY else ("this", product, "has")
        for aspect in aspects:
            link = "are" if aspect in MANY else "is"
            for opening in ((), ("the", aspect, link), owner, ("i", "think", "the", aspect)):
                prompts.append(Prompt(product, aspect, opening))
    return prompts


def sentences(words: Sequence[str]) -> Iterator[tuple[Sequence[str], bool]]:
    """Each sentence without its mark, and whether it has one."""
    begin = 0
    for place, word in enumerate(words):
        if word in MARKS:
            yield words[begin:place], True
            begin = place + 1
    if begin < len(words):
        yield words[begin:], False


def well_formed(sentence: Sequence[str]) -> tuple[bool, bool]:
    """Whether the grammar allows the order in which the kinds of a sentence's words stand, and whether it closes."""
    kinds = "".join(f"{KINDS.get(word, '?')} " for word in sentence)
    closes = CLOSINGS.fullmatch(kinds) is not None
    return closes or FORMS.fullmatch(kinds) is not None, closes


def meaning(sentence: Sequence[str]) -> tuple[float, bool]:
    """The polarity of a sentence, and whether "and" joins what agrees and "but" what does not.

    A degree and a negation reach as far as the next word that has a polarity.
    """
    total, degree, factor, last = 0.0, 1.0, 1.0, 0.0
    joint, agrees = "", True
    for word in sentence:
        if word in VALUES:
            value = VALUES[word] * degree * factor
            if joint and last:
                agrees = agrees and (value * last > 0) == (joint == "and")
            total, last, degree, factor, joint = total + value, value, 1.0, 1.0, ""
        elif word in DEGREES:
            degree = DEGREES[word]
        elif word in NEGATIONS:
            factor = NEGATED
        elif word in ("and", "but"):
            joint = word
    return total, agrees
