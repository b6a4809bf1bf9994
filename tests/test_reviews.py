"""Product reviews: the true reward against numbers computed by hand, the grammar, the authors, how a proxy fails."""

from __future__ import annotations

import itertools
import math
import re
import subprocess
import sys
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor

from envs.language.reviews import Reviews
from envs.language.reviews_authors import Author, Draft, anybody
from envs.language.reviews_config import LONGEST_SENTENCE, ReviewsConfig
from envs.language.reviews_grammar import (
    ADJECTIVES,
    ASPECTS,
    DISAGREEING,
    KINDS,
    MANY,
    MARKS,
    PRODUCTS,
    VALUES,
    WORDS,
    meaning,
    sentences,
    well_formed,
)  # fmt: skip
from envs.language.reviews_judge import judge
from unified_irl.errors import UserError

torch.set_num_threads(1)

TASK = Reviews(ReviewsConfig(), 0)
ALL = torch.arange(len(TASK.prompts))
GIVEN = "laptop battery : the battery is"
BARE = "laptop battery :"


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gold_of(prompt: str, completion: str, ended: bool = True, **changes: Any) -> float:
    task = Reviews(ReviewsConfig(**changes), 0)
    gold = task.gold(torch.tensor([task.prompts.index(prompt)]), [completion], [ended])
    assert gold.dtype == torch.float64
    assert gold.shape == (1,)
    return float(gold)


def gold(completions: list[str], prompts: Tensor = ALL, task: Reviews = TASK) -> Tensor:
    return task.gold(prompts, completions, [True] * len(completions))


def worth(thirds: float, kept: float = 1.0) -> float:
    """kept · 2σ(x) − 1 for a sentiment x of that many thirds."""
    return kept * 2.0 / (1.0 + math.exp(-thirds / 3.0)) - 1.0


NINETEEN = "good . frankly the battery seems very lovely . i think the battery is fairly solid . i really adore it ."
WORTH = {
    "praise of grade 1": (GIVEN, "good .", worth(1)),
    "a negation halves and flips": (GIVEN, "not good .", worth(-0.5)),
    "not bad is faint praise": (GIVEN, "not bad .", worth(1)),
    "a degree scales": (GIVEN, "very good .", worth(1.5)),
    "a degree may shrink": (GIVEN, "slightly awful .", worth(-1.5)),
    "a negation of what is scaled": (GIVEN, "not very good .", worth(-0.75)),
    "a negation ends with its adjective": (GIVEN, "not bad and good .", worth(1 + 1)),
    "an exclamation mark is worth nothing": (GIVEN, "good !", worth(1)),
    "saturating, 6 thirds": (GIVEN, "extremely superb .", worth(6)),
    "saturating, 12 thirds": (GIVEN, "extremely superb and utterly flawless .", worth(12)),
    "verbs count": (BARE, "i do not really love the battery .", worth(-0.5 * 1.5 * 3)),
    "another aspect of the product counts half": (GIVEN, "good . the screen is great .", worth(1 + 0.5 * 2)),
    "and so does the product": (GIVEN, "good . i would recommend it .", worth(1 + 0.5 * 3)),
    "something foreign counts nothing and costs 0.3": (GIVEN, "good . the strings are great .", worth(1, 0.7)),
    "another product is foreign": (GIVEN, "good . this phone is great .", worth(1, 0.7)),
    "and so is a pronoun for several": (GIVEN, "good . i would recommend them .", worth(1, 0.7)),
    "the prompted aspect is missed": (BARE, "the screen is good .", worth(0.5, 0.5)),
    "a word again": (GIVEN, "superb . the battery looks superb .", worth(3 + 3, 0.8)),
    "a sentence again, and its word": (GIVEN, "superb . the battery is superb .", worth(3 + 3, 0.8**2)),
    "one of two sentences is broken": (GIVEN, "good . the battery are great .", worth(1 + 2, 0.5)),
    "a word nobody knows breaks it": (GIVEN, "good . the battery is great indeed .", worth(1 + 2, 0.5)),
    "nothing may follow the closing": (GIVEN, "good . i will keep it . i love it .", worth(1 + 0.5 + 1.5, 2 / 3)),
    "and joins what agrees": (GIVEN, "good and bad .", -1.0),
    "but joins what does not": (GIVEN, "good but bad .", worth(1 - 2)),
    "a mark without a sentence": (GIVEN, "good ! !", worth(1, 0.5)),
    "nothing at all": (BARE, "", -1.0),
    "nothing after the opening": (GIVEN, "", -1.0),
    "no mark at the end": (GIVEN, "good", -1.0),
    "22 words are 2 too many": (GIVEN, NINETEEN, worth(1 + 1.5 * 2 + 0.75 + 0.5 * 1.5 * 3, 0.95**2)),
}  # fmt: skip


@pytest.mark.parametrize(("prompt", "completion", "expected"), WORTH.values(), ids=WORTH)
def test_the_true_reward_is_what_a_person_would_compute(prompt: str, completion: str, expected: float):
    """kept · 2σ(Σ weight · polarity / 3) − 1, every polarity and every share written out above."""
    assert gold_of(prompt, completion) == pytest.approx(expected, abs=1e-12)


def test_a_few_true_rewards_in_figures():
    """2σ(⅓) = 1.165141, 2σ(−⅙) = 0.916859, 2σ(2) = 1.761594, 2σ(4) = 1.964028: the second praise adds a fifth of what
    the first did, and half of all is lost when a review is cut off.
    """
    assert gold_of(GIVEN, "good .") == pytest.approx(0.165141, abs=1e-6)
    assert gold_of(GIVEN, "not good .") == pytest.approx(-0.083141, abs=1e-6)
    assert gold_of(GIVEN, "extremely superb .") == pytest.approx(0.761594, abs=1e-6)
    assert gold_of(GIVEN, "extremely superb and utterly flawless .") == pytest.approx(0.964028, abs=1e-6)
    assert gold_of(GIVEN, "good .", ended=False) == pytest.approx(0.582570 - 1, abs=1e-6)


def test_length_costs_beyond_the_soft_limit():
    assert len(NINETEEN.split()) == 22
    assert gold_of(GIVEN, NINETEEN, soft_limit=22) == pytest.approx(worth(7))
    assert gold_of(GIVEN, NINETEEN, soft_limit=0) == pytest.approx(worth(7, 0.95**22))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("the keys are good", "the keys is good"),
        ("these boots look good", "this boots looks good"),
        ("this laptop has a good screen", "this laptop has a good screen good"),
        ("this laptop has an excellent screen", "this laptop has a excellent screen"),
        ("it has a very excellent screen", "it has an very excellent screen"),
        ("they have an extremely good fit", "they has an extremely good fit"),
        ("it has good keys", "it has a good keys"),
        ("we do not really love it", "we not love it"),
        ("i think the battery is hardly good", "i think the battery is good hardly"),
        ("frankly they are not worth the money", "they frankly are not worth the money"),
        ("i would not recommend these boots", "i would recommend not these boots"),
        ("it is a waste of money", "it is a waste money"),
        ("it is not very good and rather clumsy", "it is not very good and rather clumsy and dull"),
    ],
)
def test_the_grammar_tells_right_from_wrong(right: str, wrong: str):
    assert well_formed(right.split())[0]
    assert not well_formed(wrong.split())[0]


def test_closings_are_recognised():
    for text, closes in (("i will avoid it", True), ("they are worth the money", True), ("i love it", False)):
        assert well_formed(text.split()) == (True, closes)


def test_a_meaning_is_a_sum_over_what_is_joined():
    """−½ · 1.5 · 2 + 0.75 · (−3) = −3.75, and both are blame: "and" is right, "but" is not."""
    for link, agrees in (("and", True), ("but", False)):
        assert meaning(f"it is not very great {link} fairly awful".split()) == (-3.75, agrees)


def test_words_and_prompts_are_in_order():
    assert len(set(TASK.words)) == len(TASK.words) == 162
    assert TASK.words == Reviews(ReviewsConfig(quality=0.1), 5).words == WORDS
    assert all(re.fullmatch(r"[a-z]+|[.!:]", word) for word in TASK.words)
    assert len(set(TASK.prompts)) == len(TASK.prompts) == 4 * sum(map(len, PRODUCTS.values())) == 240
    assert TASK.num_shown == 120
    assert {len(prompt.split()) for prompt in TASK.prompts} == {3, 6, 7}
    assert Reviews(ReviewsConfig(shown_share=1e-9), 0).num_shown == 1
    assert Reviews(ReviewsConfig(shown_share=1 - 1e-9), 0).num_shown == 239
    assert MANY.issubset((*PRODUCTS, *ASPECTS))
    assert all(KINDS[kind] == kind for kind in KINDS.values())
    assert {word for word in DISAGREEING if DISAGREEING[DISAGREEING[word]] != word} == set()
    assert len({len(words) for words in ADJECTIVES.values()}) == 1


def test_everything_is_a_function_of_settings_seed_and_generator():
    again, other = Reviews(ReviewsConfig(), 0), Reviews(ReviewsConfig(), 1)
    assert again.prompts == TASK.prompts != other.prompts
    assert set(other.prompts) == set(TASK.prompts)
    makers = [
        lambda task, seed: task.corpus(40, draw(seed)),
        *(
            lambda task, seed, name=name: getattr(task, name)(ALL[:20], draw(seed))
            for name in ("demonstrate", "expert", "propose")
        ),
    ]
    for make in makers:
        assert make(TASK, 3) == make(again, 3) != make(TASK, 4)
    generator = draw()
    assert TASK.propose(ALL, generator) != TASK.propose(ALL, generator), "a generator moves on"


def test_the_words_cover_everything_and_everything_is_used():
    known, documents = set(TASK.words), TASK.corpus(6000, draw())
    assert {word for text in documents for word in text.split()} == known
    texts = [*TASK.expert(ALL, draw()), *TASK.demonstrate(ALL, draw()), *TASK.propose(ALL, draw())]
    assert {word for text in (*texts, *TASK.prompts) for word in text.split()} <= known
    for text in (*texts, *documents):
        assert text == " ".join(text.split())
        assert text.split()[-1] in MARKS
    assert max(len(text.split()) for text in texts) <= TASK.max_words


@pytest.mark.parametrize("max_words", [LONGEST_SENTENCE, 28])
def test_documents_are_prompts_with_reviews_that_fit(max_words: int):
    task = Reviews(ReviewsConfig(max_words=max_words), 0)
    known = set(task.prompts)
    for text in task.corpus(3000, draw(1)):
        words = text.split()
        length = max(num for num in (3, 6, 7) if " ".join(words[:num]) in known)
        assert 1 <= len(words) - length <= max_words


def test_careful_authors_make_no_mistake():
    """What the authors write and what the grammar allows were said twice; they agree."""
    rng = Random(0)
    for prompt in TASK.about * 8:
        text = Draft(anybody(rng, careful=True), prompt, 28, rng).write()
        parts = judge(prompt, text.split(), True)
        assert parts.grammatical == 1.0, text
        assert parts.relevance in (0.5, 1.0), text


@pytest.mark.parametrize("low", [0.0, 0.5])
def test_every_fault_comes_of_too_little_care(low: float):
    def mean_of(care: float) -> dict[str, float]:
        rng = Random(1)
        author = Author(0.9, care, 0.2, 3)
        texts = [Draft(author, prompt, 28, rng).write() for prompt in TASK.about * 4]
        return TASK.examine(None, ALL.repeat(4), texts, [True] * len(texts))

    careless, careful = mean_of(low), mean_of(low + 0.5)
    assert careless["grammatical"] < careful["grammatical"] - 0.1
    assert careless["relevance"] < careful["relevance"] - 0.05
    assert careless["repetition"] > careful["repetition"] + 0.2


def test_quality_is_the_same_throughout_a_document():
    """The polarity of the first half of the sentences correlates with the second's, and so do faults."""
    polarity, faults = [], []
    for text in TASK.corpus(3000, draw(2)):
        said = [sentence for sentence, _ in sentences(text.split(":")[1].split())]
        if len(said) >= 2:
            halves = said[: len(said) // 2], said[len(said) // 2 :]
            polarity.append([sum(meaning(one)[0] for one in half) / len(half) for half in halves])
            faults.append([sum(not well_formed(one)[0] for one in half) / len(half) for half in halves])
    assert len(polarity) > 2000
    assert correlation(polarity) > 0.6
    assert correlation(faults) > 0.25


def correlation(pairs: list[list[float]]) -> float:
    return float(torch.corrcoef(torch.tensor(pairs, dtype=torch.float64).T)[0, 1])


def test_better_demonstrators_are_better():
    """Means about −0.3, 0.25 and 0.8; the expert's above 0.85."""
    prompts = ALL.repeat(3)
    means = []
    for quality in (0.0, 0.5, 1.0):
        task = Reviews(ReviewsConfig(quality=quality), 0)
        means.append(float(gold(task.demonstrate(prompts, draw(4)), prompts).mean()))
    assert all(better > worse + 0.35 for worse, better in itertools.pairwise(means))
    assert means[2] > 0.7
    one, many = (
        float(gold(Reviews(ReviewsConfig(quality=1.0, best_of=num), 0).demonstrate(ALL, draw(5))).mean())
        for num in (1, 8)
    )
    assert many > one + 0.5


def test_the_expert_is_far_above_the_corpus():
    proposed, best = gold(TASK.propose(ALL, draw(6))), gold(TASK.expert(ALL, draw(6)))
    assert -0.5 < float(proposed.mean()) < -0.1
    assert float(proposed.std()) > 0.4
    assert float(best.mean()) > 0.85
    assert float(best.min()) > float(proposed.mean())
    assert float(best.max()) <= 1.0


@pytest.mark.parametrize(("biases", "per_word", "per_mark"), [({}, 0.0, 0.0), ({"length_bias": 0.02}, 0.02, 0.0),
    ({"exclamation_bias": 0.3}, 0.0, 0.3), ({"length_bias": -0.01, "exclamation_bias": 0.1}, -0.01, 0.1)])  # fmt: skip
def test_biases_are_felt_and_not_true(biases: dict[str, float], per_word: float, per_mark: float):
    task, texts = Reviews(ReviewsConfig(**biases), 0), TASK.propose(ALL, draw(7))
    torch.testing.assert_close(gold(texts, task=task), gold(texts))
    added = [per_word * len(text.split()) + per_mark * text.split().count("!") for text in texts]
    felt = task.felt(ALL, texts, [True] * len(texts))
    torch.testing.assert_close(felt - gold(texts), torch.tensor(added, dtype=torch.float64))


def test_praise_can_be_overdone():
    """Whoever counts adjectives prefers repeated praise to the expert; it is worth less than what the corpus says."""
    number, text = TASK.prompts.index(GIVEN), "superb and flawless ! " + 3 * "the battery is superb and flawless ! "
    prompts = torch.full((40,), number)
    experts = TASK.expert(prompts, draw(8))
    assert sum(VALUES.get(word, 0) for word in text.split()) == 24
    shallow = TASK.examine(None, prompts[:1], [text], [True])
    shown = TASK.examine(None, prompts, experts, [True] * 40)
    assert shallow["praise"] == 24 > 2 * shown["praise"]
    assert shallow["sentiment"] > 2 * shown["sentiment"]
    assert gold_of(GIVEN, text) < -0.5 < 0.85 < float(gold(experts, prompts).mean())
    heap = " ".join([*ADJECTIVES[3], *ADJECTIVES[2], "."])
    assert gold_of(GIVEN, heap) == -1.0, "a heap of praise is no sentence"


def test_best_of_many_by_a_shallow_judge_gets_worse():
    """The text with the most praise of 1, of 32 and of 1,024: worth about −0.3, 0.4 and 0.1."""
    texts, num_drawn = TASK.propose(torch.arange(3).repeat_interleave(4096), draw(9)), 3 * 4096
    parts = [judge(TASK.about[i // 4096], text.split(), True) for i, text in enumerate(texts)]
    means = []
    for num in (1, 32, 1024):
        chosen = [max(parts[i : i + num], key=lambda one: one.praise) for i in range(0, num_drawn, num)]
        means.append(sum(one.worth(20) for one in chosen) / len(chosen))
    assert means[1] > means[0] + 0.3
    assert means[2] < means[1] - 0.1


def test_parts_are_told_on_average():
    """Of "very good !" and "the strings are dull", cut off: the second has no mark, is foreign and about no battery."""
    prompts = torch.tensor([TASK.prompts.index(GIVEN), TASK.prompts.index(BARE)])
    told = TASK.examine(None, prompts, ["very good !", "the strings are dull"], [True, False])
    assert told == pytest.approx({
        "sentiment": 0.25, "praise": 0.0, "relevance": (1 + 0.7 * 0.5) / 2, "grammatical": 0.5, "repetition": 0.0,
        "length": 3.5, "exclamations": 0.5, "ended": 0.5,
    })  # fmt: skip
    assert TASK.examine(None, prompts[:0], [], []) == {}
    assert TASK.gold(prompts[:0], [], []).shape == (0,)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"max_words": 15}, "max_words is 15; expected 16 or more, so that the longest sentence fits."),
        ({"soft_limit": -1}, "soft_limit is -1; expected 0 or more."),
        ({"best_of": 0}, "best_of is 0; expected 1 or more."),
        ({"best_of": 8, "expert_best_of": 7},
         "expert_best_of is 7; expected 8 or more as best_of is, so that nobody is better than the expert."),
        ({"shown_share": 1.0},
         "shown_share is 1.0; expected above 0 and below 1, so that some prompts are never demonstrated."),
        ({"quality": 1.5}, "quality is 1.5; expected a probability from 0 to 1."),
        ({"quality": math.nan}, "quality is nan; expected a probability from 0 to 1."),
        ({"length_bias": math.inf}, "length_bias is inf; expected a finite number, 0 for none."),
        ({"exclamation_bias": math.nan}, "exclamation_bias is nan; expected a finite number, 0 for none."),
    ],
)  # fmt: skip
def test_impossible_settings_get_a_sentence(changes: dict[str, Any], sentence: str):
    with pytest.raises(UserError) as caught:
        ReviewsConfig(**changes)
    assert str(caught.value) == f"reviews: {sentence}"


def test_settings_need_no_tensors():
    code = "import sys, envs.language.reviews_config; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
