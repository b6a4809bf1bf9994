"""How well a judge tells better answers from worse ones, subset by subset, in the layouts of RewardBench.

The first edition compares a chosen answer with a rejected one. The second has lists: one right answer among four, and
`Ties`, where several are right and each has to stand above every wrong one. Equal numbers are no decision: two of them
count half, three a third.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from scipy import stats

from experiments.show import table
from llm.data import files
from llm.data.records import Prompt, Reply, Unfit, compared
from llm.judges import Judge
from unified_irl.errors import UserError

TIES = "ties"


@dataclass(frozen=True)
class Question:
    """Right and wrong answers to one prompt."""

    subset: str
    prompt: Prompt
    right: tuple[Reply, ...]
    wrong: tuple[Reply, ...]

    @property
    def chance(self) -> float:
        """The score of a judge that knows nothing."""
        if self.has_ties:
            return 0.0
        return 1.0 / (1 + len(self.wrong))

    @property
    def has_ties(self) -> bool:
        return self.subset.lower() == TIES

    def score(self, right: list[float], wrong: list[float]) -> float:
        """Of the best right answer among the wrong ones; with ties, of all right answers."""
        if self.has_ties:
            return float(min(right) > max(wrong))
        best = max(right)
        return 0.0 if max(wrong) > best else 1.0 / (1 + sum(one == best for one in wrong))


def questions(source: str, split: str, *, allow_download: bool) -> list[Question]:
    found = []
    for number, row in files.rows(source, split, allow_download=allow_download):
        try:
            found.append(_question(row))
        except Unfit as problem:
            raise UserError(f"{source}, row {number}, {problem}. Mend or remove the row.") from problem
    if not found:
        raise UserError(f"{source} holds no row; expected prompts with chosen and rejected answers.")
    return found


def _question(row: Mapping[str, Any]) -> Question:
    subset = str(row.get("subset", "all"))
    if not _is_list_of_texts(row.get("chosen")):
        pair = compared(row)
        return Question(subset, pair.prompt, (pair.chosen,), (pair.rejected,))
    right, wrong, prompt = row["chosen"], row.get("rejected"), row.get("prompt")
    if not _is_list_of_texts(wrong) or not isinstance(prompt, str):
        raise Unfit("has a list of chosen answers; expected a list of rejected ones and a prompt beside it")
    asked: Prompt = prompt
    return Question(subset, asked, tuple(right), tuple(wrong or ()))


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)


def scored(judge: Judge, some: list[Question]) -> list[dict[str, Any]]:
    """Per subset, and over all of them: how many questions, the mean score with its 95 % interval, and chance."""
    answers = [(one.prompt, reply) for one in some for reply in (*one.right, *one.wrong)]
    said: Iterator[float] = iter(judge(answers))
    scores = []
    for one in some:
        right, wrong = ([next(said) for _ in side] for side in (one.right, one.wrong))
        scores.append(one.score(right, wrong))
    names = list(dict.fromkeys(one.subset for one in some))
    rows = [
        _row(name, [(one, score) for one, score in zip(some, scores, strict=True) if one.subset == name])
        for name in names
    ]
    return rows if len(rows) == 1 else [*rows, _row("all of them", list(zip(some, scores, strict=True)))]


def _row(name: str, pairs: list[tuple[Question, float]]) -> dict[str, Any]:
    count, total = len(pairs), sum(score for _, score in pairs)
    interval = stats.binomtest(min(count, round(total)), count).proportion_ci(method="wilson")
    return {
        "subset": name,
        "count": count,
        "score": total / count,
        "low": float(interval.low),
        "high": float(interval.high),
        "chance": sum(one.chance for one, _ in pairs) / count,
    }


def show(title: str, rows: list[dict[str, Any]]) -> None:
    table(
        title,
        ("subset", "questions", "right, with 95 % interval", "chance"),
        [
            (
                row["subset"],
                str(row["count"]),
                f"{row['score']:.3f} [{row['low']:.3f}, {row['high']:.3f}]",
                f"{row['chance']:.3f}",
            )
            for row in rows
        ],
        numbers_from=1,
    )
