"""The same tables as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.report.sources import Comparison
from experiments.show import markdown
from experiments.summary import across, failures, made_with, number, tables, tuned, verdicts


def document(title: str, comparisons: Sequence[Comparison]) -> str:
    """Results, where they come from, what failed, what was tuned, and every run."""
    headings, lines = tables([one.record for one in comparisons])
    said = {key: words for one in comparisons for key, words in verdicts(one.record).items()}
    judged = [(*line[:2], said[line[0], line[1]], *line[2:]) for line in lines]
    parts = [f"# {title}\n"]
    tasks, worlds = across([one.record for one in comparisons])
    if worlds:
        parts.append("## Across tasks\n\n" + _table(tasks, worlds) + "\n## Results\n")
    parts.append(_table((*headings[:2], "verdict", *headings[2:]), judged))
    parts.append("".join(f"- `{one.record['command']}`; {made_with(one.record)}\n" for one in comparisons))
    if failed := [sentence for one in comparisons for sentence in failures(one.record)]:
        parts.append("## Failed\n\n" + "".join(f"- {_safe(sentence)}\n" for sentence in failed))
    if tries := [line for one in comparisons for line in tuned(one.record)]:
        parts.append("## Tuned on other seeds\n\n" + "".join(f"- {_safe(line)}\n" for line in tries))
    rows = [
        (row["task"], row["method"], str(row["seed"]),
         *(number(row[group]["score"]) if group in row else "–" for group in ("final", "best")), row["commit"][:10],
         row["failure"])
        for one in comparisons
        for row in one.rows
    ]  # fmt: skip
    heads = ("task", "method", "seed", "final score", "best score", "commit", "failure")
    parts.append("## Runs\n\n" + _table(heads, rows))
    return "\n".join(parts)


def _table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return markdown(headings, [tuple(map(_safe, line)) for line in lines])


def _safe(text: str) -> str:
    """A bar or a line break would end the cell, and a tag would be one."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
