"""Operations on lists: the true reward by hand, who makes which mistakes, and what is covered by whom."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor

from envs.language.instructions import LEVELS, Author, Instruction, Instructions, carry_out, instruction, slipped
from envs.language.instructions_config import LEAST_PROMPTS, OPERATIONS, InstructionsConfig
from envs.language.task import LanguageTask
from unified_irl.errors import UserError

torch.set_num_threads(1)

TASK = Instructions(InstructionsConfig(), 0)
ALL = torch.arange(len(TASK.prompts))
BY_OVERLAP = {overlap: Instructions(InstructionsConfig(overlap=overlap), 0) for overlap in (0.0, 0.5, 1.0)}
THREE = Instructions(InstructionsConfig(most_composed=3, overlap=0.5), 1)


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def read(prompt: str) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """The operations and the list of a prompt."""
    assert prompt.endswith(" :")
    given, *asked = prompt.removesuffix(" :").split(" | ")
    return tuple((one.split()[0], "".join(one.split()[1:])) for one in asked), tuple(given.split())


def names(prompt: str) -> tuple[str, ...]:
    return tuple(name for name, _ in read(prompt)[0])


def understood(prompt: str) -> Instruction:
    one = instruction(*read(prompt))
    assert one is not None
    assert one.text == prompt
    return one


def golds(completions: list[str], prompts: Tensor = ALL, task: Instructions = TASK) -> Tensor:
    return task.gold(prompts, completions, [True] * len(completions))


def examined(task: Instructions, prompts: Tensor, completions: list[str]) -> dict[str, float]:
    return task.examine(None, prompts, completions, [True] * len(completions))


ANSWERS = [
    ("d a c b | reverse :", "b c a d"),
    ("d a c b | rotate :", "a c b d"),
    ("d a c b | swap :", "a d c b"),
    ("d a c b | double :", "d d a c b"),
    ("d a c b | shorten :", "d a c"),
    ("d a c b | drop a :", "d c b"),
    ("d a c b | begin f :", "f d a c b"),
    ("d a c b | begin a :", "a d a c b"),
    ("d a c b | end f :", "d a c b f"),
    ("d a c b | reverse | drop b :", "c a d"),
    ("a b c | rotate | double :", "b b c a"),
    ("a b c | double | rotate :", "a b c a"),
    ("a b c | begin c | drop c :", "a b"),
    ("a b c | double | drop a :", "b c"),
    ("a b c | shorten | end d :", "a b d"),
    ("a b c | reverse | double | end d :", "c c b a d"),
]


@pytest.mark.parametrize(("prompt", "answer"), ANSWERS, ids=[prompt for prompt, _ in ANSWERS])
def test_operations_are_carried_out_from_left_to_right(prompt: str, answer: str):
    assert " ".join(carry_out(*read(prompt))) == answer


def test_every_operation_is_among_them():
    assert {name for prompt, _ in ANSWERS for name in names(prompt)} == set(OPERATIONS)


GIVEN = "d a c b | reverse | drop b :"
WORTH = {
    "the answer": (GIVEN, "c a d", True, 1.0),
    "cut off before it was ended": (GIVEN, "c a d", False, 1.0 - 0.25),
    "only the first operation": (GIVEN, "b c a d", True, 0.5 * 0 / 4 + 0.5 * 1 / 2),
    "only the second operation": (GIVEN, "d a c", True, 0.5 * 1 / 3 + 0.5 * 1 / 2),
    "the list as it was": (GIVEN, "d a c b", True, 0.5 * 1 / 4),
    "one place is wrong": (GIVEN, "c d d", True, 0.5 * 2 / 3),
    "the last is missing": (GIVEN, "c a", True, 0.5 * 2 / 3),
    "one too many": (GIVEN, "c a d d", True, 0.5 * 3 / 4),
    "nothing in its place": (GIVEN, "a d", True, 0.0),
    "nothing at all": (GIVEN, "", True, 0.0),
    "nothing, and cut off": (GIVEN, "", False, -0.25),
    "an operation is no symbol": (GIVEN, "c a reverse", True, 0.5 * 2 / 3 - 0.5 * 1 / 3),
    "nor is a mark": (GIVEN, "c a d |", True, 0.5 * 3 / 4 - 0.5 * 1 / 4),
    "nor a word nobody knows": (GIVEN, "c a z", True, 0.5 * 2 / 3 - 0.5 * 1 / 3),
    "no symbol at all": (GIVEN, ": <pad>", True, -0.5),
    "the worst": (GIVEN, ": : :", False, -0.75),
    "in the wrong order": ("a b c | rotate | double :", "a b c a", True, 0.5 * 3 / 4),
    "two of three": ("a b c | reverse | double | end d :", "c b a d", True, 0.5 * 1 / 5 + 0.5 * 2 / 3),
    "the last of three": ("a b c | reverse | double | end d :", "a b c d", True, 0.5 * 0 / 5 + 0.5 * 1 / 3),
    "one operation, left out": ("a b c | end d :", "a b c", True, 0.5 * 3 / 4),
    "a symbol at the wrong end": ("a b c | end d :", "d a b c", True, 0.0),
    "a symbol that was not asked for": ("a b c | end d :", "a b c e", True, 0.5 * 3 / 4),
    "left out, but another did it": ("a b c | begin b | end b :", "b a b c", True, 0.5 * 4 / 5 + 0.5 * 1 / 2),
}  # fmt: skip


@pytest.mark.parametrize(("prompt", "said", "ended", "expected"), WORTH.values(), ids=WORTH)
def test_the_true_reward_by_hand(prompt: str, said: str, ended: bool, expected: float):
    """½ · agreement + ½ · carried − ½ · foreign − ¼ · [not ended]. Reversing d a c b gives b c a d, without b: c a d.
    Rotating a b c and doubling the first gives b b c a, not a b c a. The three operations on a b c give c c b a d, and
    c b a d without doubling.
    """
    assert understood(prompt).worth(said.split(), ended, TASK.symbols) == pytest.approx(expected, abs=1e-12)


def test_the_task_pays_by_that():
    """The answer; it again, cut off; an unknown word alone; nothing."""
    prompts, right = torch.tensor([3, 3, 7, 9]), " ".join(carry_out(*read(TASK.prompts[3])))
    gold = TASK.gold(prompts, [right, right, "what", ""], [True, False, True, True])
    assert gold.dtype == torch.float64
    assert gold.tolist() == [1.0, 0.75, -0.5, 0.0]
    assert TASK.gold(prompts[:0], [], []).shape == (0,)


def test_an_operation_that_changes_nothing_is_not_asked_for():
    for prompt in ("a b c | drop d :", "a b c | reverse | reverse :", "a b c | end d | shorten :",
                   "a b c | begin d | drop d :", "a b c | begin a | double :", "a b c | double | swap :"):  # fmt: skip
        changes = instruction(*read(prompt)) is not None
        assert changes == (prompt == "a b c | begin a | double :"), prompt
    for task in (TASK, THREE):
        for prompt in task.prompts:
            operations, given = read(prompt)
            answer = carry_out(operations, given)
            for count in range(len(operations)):
                assert all(carry_out(some, given) != answer for some in itertools.combinations(operations, count))


def test_words_and_prompts_are_in_order():
    task: LanguageTask = TASK
    assert task.name == "instructions"
    assert task.words == (*OPERATIONS, "a", "b", "c", "d", "e", "f", "|", ":")
    assert (len(task.prompts), task.num_shown, task.max_words) == (2000, 1000, 10)
    for one in (TASK, THREE):
        assert len(set(one.prompts)) == len(one.prompts)
        assert {word for prompt in one.prompts for word in prompt.split()} <= set(one.words)
        assert {len(read(prompt)[1]) for prompt in one.prompts} == {3, 4, 5}
        assert all(len(set(read(prompt)[1])) == len(read(prompt)[1]) for prompt in one.prompts)
        for part in (one.prompts[: one.num_shown], one.prompts[one.num_shown :]):
            assert {len(names(prompt)) for prompt in part} == set(range(1, one.config.most_composed + 1))
            assert {names(prompt)[0] for prompt in part if len(names(prompt)) == 1} == set(OPERATIONS)
    assert THREE.prompts == tuple(understood(prompt).text for prompt in THREE.prompts)


@pytest.mark.parametrize(("overlap", "num_each", "num_both"), [(0.0, 4, 0), (0.5, 6, 4), (1.0, 8, 8)])
def test_operations_are_covered_as_the_overlap_says(overlap: float, num_each: int, num_both: int):
    """Eight operations: 0, 4 or 8 are common, and of the others each side has half."""
    for seed in range(5):
        task = Instructions(InstructionsConfig(overlap=overlap, num_prompts=100), seed)
        shows, compares = set(task.demonstrated_operations), set(task.compared_operations)
        assert (len(shows), len(compares), len(shows & compares)) == (num_each, num_each, num_both)
        assert shows | compares == set(OPERATIONS)
        assert task.demonstrated_operations == tuple(name for name in OPERATIONS if name in shows)


def test_more_overlap_covers_more_and_the_odd_one_goes_to_either():
    """Three of eight in common (0.4 · 8 = 3.2) leave five."""
    sizes = set()
    for seed in range(8):
        tasks = [
            Instructions(InstructionsConfig(overlap=overlap, num_prompts=100), seed) for overlap in (0, 0.4, 0.7, 1)
        ]
        for less, more in itertools.pairwise(tasks):
            assert set(less.demonstrated_operations) < set(more.demonstrated_operations)
            assert set(less.compared_operations) < set(more.compared_operations)
        sizes.add((len(tasks[1].demonstrated_operations), len(tasks[1].compared_operations)))
    assert sizes == {(5, 6), (6, 5)}
    assert (
        len({Instructions(InstructionsConfig(num_prompts=100), seed).demonstrated_operations for seed in range(8)}) > 4
    )


@pytest.mark.parametrize("task", [*BY_OVERLAP.values(), THREE], ids=[*map(str, BY_OVERLAP), "three"])
def test_masks_follow_the_coverage(task: Instructions):
    for mask, covered in (
        (task.demonstrable, task.demonstrated_operations),
        (task.comparable, task.compared_operations),
    ):
        assert mask.dtype == torch.bool
        within = [set(names(prompt)) <= set(covered) for prompt in task.prompts]
        assert mask[: task.num_shown].tolist() == within[: task.num_shown]
        assert not bool(mask[task.num_shown :].any())
        alone = {name for prompt, shown in zip(task.prompts, mask.tolist(), strict=True) if shown
                 for name in names(prompt) if len(names(prompt)) == 1}  # fmt: skip
        assert alone == set(covered)
    assert bool((task.demonstrable | task.comparable)[: task.num_shown].all())
    if task.config.overlap == 0.0:
        assert not bool((task.demonstrable & task.comparable).any())
    if task.config.overlap == 1.0:
        assert torch.equal(task.demonstrable, task.comparable)


@pytest.mark.parametrize("task", [*BY_OVERLAP.values(), THREE], ids=[*map(str, BY_OVERLAP), "three"])
def test_kept_prompts_have_other_lists_and_half_of_them_other_compositions(task: Instructions):
    shown, kept = task.prompts[: task.num_shown], task.prompts[task.num_shown :]
    assert not {read(prompt)[1] for prompt in shown} & {read(prompt)[1] for prompt in kept}
    together = {pair for prompt in shown for pair in pairs(prompt)}
    is_new = [not pairs(prompt) <= together for prompt in kept]
    assert sum(is_new) == len(kept) // 2
    assert 5 <= len(together) <= 21, "a quarter of 28 pairs is kept apart, and what is covered by nobody as a whole"
    for prompt, new in zip(kept, is_new, strict=True):
        told = examined(task, torch.tensor([task.prompts.index(prompt)]), [" ".join(carry_out(*read(prompt)))])
        assert ("composed" in told) == new
    assert bool(together), "compositions are shown as well"


def pairs(prompt: str) -> set[frozenset[str]]:
    return {frozenset(pair) for pair in itertools.combinations(names(prompt), 2)}


def test_where_nothing_is_kept_apart_only_the_lists_are_new():
    for changes in ({"kept_share": 0.0, "overlap": 1.0}, {"most_composed": 1, "num_prompts": 400}):
        task = Instructions(InstructionsConfig(**changes), 0)
        everything = torch.arange(len(task.prompts))
        assert "composed" not in examined(task, everything, task.expert(everything, draw()))
    task = Instructions(InstructionsConfig(num_prompts=2 * LEAST_PROMPTS, most_composed=3, overlap=0.0), 0)
    assert bool(task.demonstrable.any())
    assert bool(task.comparable.any())
    assert {names(prompt) for prompt in task.prompts[:LEAST_PROMPTS]} >= {(name,) for name in OPERATIONS}


def test_everything_is_a_function_of_settings_seed_and_generator():
    again, other = Instructions(InstructionsConfig(), 0), Instructions(InstructionsConfig(), 1)
    assert again.prompts == TASK.prompts != other.prompts
    assert torch.equal(again.demonstrable, TASK.demonstrable)
    for make in (
        lambda task, seed: task.corpus(40, draw(seed)),
        lambda task, seed: task.demonstrate(ALL[:40], draw(seed)),
        lambda task, seed: task.propose(ALL[:40], draw(seed)),
    ):
        assert make(TASK, 3) == make(again, 3) != make(TASK, 4)
    assert TASK.expert(ALL, draw(3)) == TASK.expert(ALL, draw(4))
    generator = draw()
    assert TASK.propose(ALL, generator) != TASK.propose(ALL, generator), "a generator moves on"


def test_all_runs_share_one_corpus():
    """Whatever the task's seed, and whoever demonstrates or is covered."""
    other = Instructions(InstructionsConfig(overlap=0.0, kept_share=0.5, quality=0.1, num_prompts=300), 7)
    assert other.corpus(200, draw()) == TASK.corpus(200, draw())


def test_documents_are_prompts_with_completions_that_fit():
    for task in (TASK, THREE):
        kinds = set()
        for text in task.corpus(4000, draw(1)):
            prompt, said = asked(text)
            assert text == f"{prompt.text} {' '.join(said)}" == " ".join(text.split())
            assert set(text.split()) <= set(task.words)
            assert set(said) <= set(task.symbols)
            assert 1 <= len(said) <= task.config.longest + task.config.most_composed < task.max_words
            kinds.add(prompt.kind)
        assert {len(kind) for kind in kinds} == set(range(1, task.config.most_composed + 1))
        assert {pair for kind in kinds for pair in itertools.combinations(kind, 2)} >= {
            pair for prompt in task.prompts for pair in itertools.combinations(names(prompt), 2)
        }, "the language has all compositions"


def asked(text: str) -> tuple[Instruction, tuple[str, ...]]:
    """A document's prompt and completion."""
    prompt, _, said = text.partition(" : ")
    return understood(f"{prompt} :"), tuple(said.split())


def test_quality_is_the_same_throughout_a_document():
    """Authors carry out an operation with probability c: on average ½ of single ones, and both of two in E[c²] = 0.3625
    of the texts; operations that succeeded on their own would both do so in ¼. Neither is carried out, and both left
    out, by half of the authors in E[(1 − c)²] of the texts, one of two in 2 E[c (1 − c)] = 0.275.
    """
    exact: dict[int, list[bool]] = {1: [], 2: []}
    shares = []
    for text in TASK.corpus(16_000, draw(2)):
        prompt, said = asked(text)
        exact[len(prompt.operations)].append(said == prompt.answer)
        if len(prompt.operations) == 2:
            shares.append(prompt.carried.get(said))
    assert sum(level**2 for level in LEVELS) / 4 == pytest.approx(0.3625)
    assert mean(exact[1]) == pytest.approx(0.5, abs=0.03)
    assert mean(exact[2]) == pytest.approx(0.3625, abs=0.03)
    both, one, neither = (mean([share == value for share in shares]) for value in (1.0, 0.5, 0.0))
    assert neither == pytest.approx(0.3625 / 2, abs=0.04)
    assert one == pytest.approx(0.275 / 2, abs=0.05)
    assert both * neither > 4 * (one / 2) ** 2


def mean(values: list[Any]) -> float:
    return sum(values) / len(values)


def test_whoever_errs_does_so_in_one_way():
    """Without any competence, the list is left as it is, or never what it should be nor what it was made of."""
    rng = Random(0)
    for one in TASK.asked:
        assert Author(1.0, True).answer(one, TASK.symbols, rng) == " ".join(one.answer)
        assert Author(0.0, True).answer(one, TASK.symbols, rng) == " ".join(one.given)
        if len(one.operations) == 1:
            assert Author(0.0, False).answer(one, TASK.symbols, rng) != " ".join(one.answer)
    slips = {slipped(("a", "b"), ("a", "b", "c"), rng) for _ in range(300)}
    assert slips == {("b", "a"), ("a",), ("b",), ("b", "b"), ("c", "b"), ("a", "a"), ("a", "c")}
    assert {slipped(("a",), ("a", "b"), rng) for _ in range(50)} == {("b",)}
    nearly_none = understood("a b c | drop b | shorten :")
    assert all(Author(0.0, False).answer(nearly_none, TASK.symbols, rng) for _ in range(300))


def test_better_demonstrators_are_better():
    """Means about 0.2, 0.55, 0.9 and 1; the corpus lies between."""
    means = []
    for quality in (0.0, 0.5, 0.9, 1.0):
        task = Instructions(InstructionsConfig(quality=quality), 0)
        means.append(float(golds(task.demonstrate(ALL, draw(4))).mean()))
    assert all(better > worse + 0.08 for worse, better in itertools.pairwise(means))
    assert means[-1] == 1.0
    assert bool((golds(TASK.expert(ALL, draw())) == 1.0).all())
    proposed = golds(TASK.propose(ALL, draw(5)))
    assert means[0] + 0.2 < float(proposed.mean()) < means[2] - 0.2
    assert float(proposed.std()) > 0.3
    assert float(proposed.min()) >= 0.0


@pytest.mark.parametrize("bias", [0.0, 0.05, -0.1])
def test_a_labeller_may_like_length(bias: float):
    task, texts = Instructions(InstructionsConfig(length_bias=bias), 0), TASK.propose(ALL, draw(6))
    added = torch.tensor([bias * len(text.split()) for text in texts], dtype=torch.float64)
    torch.testing.assert_close(task.felt(ALL, texts, [True] * len(texts)), golds(texts) + added)


def test_examined_by_part():
    """Two prompts of each part: the answer on one and the answer cut off on the other, 0.875 on average; an empty and a
    foreign completion bring "composed" down by 0 and −½.
    """
    task = BY_OVERLAP[0.5]
    shows, compares = set(task.demonstrated_operations), set(task.compared_operations)
    expert = task.expert(ALL, draw())
    parts: dict[str, list[int]] = {"demonstrated_only": [], "compared_only": [], "both": [], "composed": []}
    together = {pair for prompt in task.prompts[: task.num_shown] for pair in pairs(prompt)}
    for number, prompt in enumerate(task.prompts):
        kind = set(names(prompt))
        if not pairs(prompt) <= together:
            parts["composed"].append(number)
        elif kind <= shows & compares:
            parts["both"].append(number)
        else:
            parts["demonstrated_only" if kind <= shows else "compared_only"].append(number)
    assert min(map(len, parts.values())) > 300
    chosen = [number for numbers in parts.values() for number in numbers[-2:]] + parts["composed"][:2]
    texts = [*(expert[number] for number in chosen[:8]), "", "x"]
    told = task.examine(None, torch.tensor(chosen), texts, [True, False] * 4 + [True, True])
    assert told == pytest.approx({
        "exact": 0.4, "format": 0.4, "demonstrated_only": 0.875, "compared_only": 0.875, "both": 0.875,
        "composed": (1.0 + 0.75 + 0.0 - 0.5) / 4,
    })  # fmt: skip
    few = torch.tensor(parts["both"][:5])
    assert set(examined(task, few, task.expert(few, draw()))) == {"exact", "format", "both"}
    assert task.examine(None, ALL[:0], [], []) == {}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_symbols": 9}, "num_symbols is 9; expected 4 to 8."),
        ({"longest": 7}, "longest is 7; expected 4 to 6."),
        ({"longest": 4, "shortest": 5}, "shortest is 5; expected 3 to 4."),
        ({"shortest": 2}, "shortest is 2; expected 3 to 5."),
        ({"most_composed": 4}, "most_composed is 4; expected 1 to 3."),
        ({"num_prompts": 47}, "num_prompts is 47; expected 48 to 10000."),
        ({"max_words": 7},
         "max_words is 7; expected 8 or more, so that the longest answer fits and can be ended."),
        ({"shown_share": 0.01},
         "shown_share is 0.01, which shows 20 of 2000 prompts; expected at least 24 to be shown and 24 to be kept."),
        ({"shown_share": math.nan},
         "shown_share is nan, which shows 0 of 2000 prompts; expected at least 24 to be shown and 24 to be kept."),
        ({"shown_share": 1.0},
         "shown_share is 1.0, which shows 2000 of 2000 prompts; expected at least 24 to be shown and 24 to be kept."),
        ({"kept_share": 1.0}, "kept_share is 1.0; expected at least 0 and below 1."),
        ({"overlap": 1.1}, "overlap is 1.1; expected a share from 0 to 1."),
        ({"quality": math.nan}, "quality is nan; expected a probability from 0 to 1."),
        ({"length_bias": math.inf}, "length_bias is inf; expected a finite number, 0 for none."),
    ],
)  # fmt: skip
def test_impossible_settings_get_a_sentence(changes: dict[str, Any], sentence: str):
    with pytest.raises(UserError) as caught:
        InstructionsConfig(**changes)
    assert str(caught.value) == f"instructions: {sentence}"


def test_more_prompts_than_there_are():
    """Of 24 lists of three and as many of four, half are shown: 24 lists, of which single operations make
    24 · 5 + 24 · 8 with a symbol at either end, and 36 + 48 without one of theirs, so 396 prompts at most."""
    least = InstructionsConfig(num_symbols=4, longest=4, most_composed=1, num_prompts=600)
    assert len(Instructions(least, 0).prompts) == 600
    with pytest.raises(
        UserError, match=r"^instructions: only 396 of 450 prompts could be made without repeating one; "
    ):
        Instructions(replace(least, num_prompts=900), 0)


def test_settings_need_no_tensors():
    code = "import sys, envs.language.instructions_config; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).resolve().parents[1], check=True)
