"""The list of runs, and what is told of each when it is opened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.report.elements import Markup, element, joined
from experiments.report.figures import small_curve
from experiments.report.parts import named, number_cell, origin, section, sortable
from experiments.report.riches import Film, Speech
from experiments.report.sources import Comparison
from experiments.summary import number

HEADINGS = ("task", "method", "seed", "final score", "best score", "minutes", "commit", "failure", "details")


def runs(
    comparisons: Sequence[Comparison], methods: Sequence[str], filmed: Sequence[Film], spoken: Sequence[Speech]
) -> Markup | None:
    """A row for every cell; its details wait in a template."""
    all_rows = [(one, row) for one in comparisons for row in one.rows]
    films = {(one.row["task"], one.row["method"]): one for one in filmed}
    said = {(one.task, name) for one in spoken for name in one.columns}
    lines, details = [], []
    for place, (comparison, row) in enumerate(all_rows):
        key = row["task"], row["method"]
        film = films.get(key)
        seen = film is not None and film.path is not None and film.row["seed"] == row["seed"]
        lines.append(_line(row, place, methods))
        details.append(_details(comparison, row, place, methods, has_film=seen, speaks=key in said))
    caption = joined("Every run. Its details open in a window: scores, curve, settings, film or completions.")
    return section("runs", "Runs", sortable(caption, HEADINGS, lines, numbers_from=2), origin(comparisons), *details)


def _line(row: dict[str, Any], place: int, methods: Sequence[str]) -> Markup:
    scores = [number(row[group]["score"]) if group in row else "–" for group in ("final", "best")]
    minutes = f"{row['seconds'] / 60:.1f}" if "seconds" in row else "–"
    name = f"{row['task']} {row['method']} seed {row['seed']}"
    button = element("button", "open", type="button", data_run=f"run-{place}", aria_label=f"open {name}")
    return element(
        "tr", element("td", row["task"]), element("th", named(row["method"], methods), scope="row"),
        number_cell(str(row["seed"])), *map(number_cell, scores), number_cell(minutes),
        element("td", element("code", row["commit"][:10])), element("td", row["failure"], class_="failure"),
        element("td", button),
        data_task=row["task"], data_method=row["method"], class_="failed" if row["failure"] else None,
    )  # fmt: skip


def _details(
    comparison: Comparison, row: dict[str, Any], place: int, methods: Sequence[str], *, has_film: bool, speaks: bool
) -> Markup:
    title = f"{row['task']}, {row['method']}, seed {row['seed']}"
    cell = comparison.cell(row)
    where = f"{comparison.folder / row['directory']}"
    facts = {
        "settings": f"{where}/config.json" if cell else f"{where} (not there any more)",
        "commit": row["commit"],
        "command": comparison.record["command"],
    }
    listed = [
        part for name, fact in facts.items() for part in (element("dt", name), element("dd", element("code", fact)))
    ]
    numbers = {
        **row.get("final", {}),
        **{f"best {name}": value for name, value in row.get("best", {}).items()},
    }
    metrics = [
        element("tr", element("th", name, scope="row"), element("td", number(value), class_="number"))
        for name, value in numbers.items()
    ]
    drawn = small_curve(row, methods)
    film = element("p", data_film_of=f"{row['task']}/{row['method']}") if has_film else None
    link = element("p", element("a", "What it says", href="#completions")) if speaks and row.get("final") else None
    table = element("table", element("caption", "Final metrics"), element("tbody", *metrics)) if metrics else None
    return element(
        "template",
        element("h2", title, id="run-title"),
        element("p", row["failure"], class_="failure") if row["failure"] else None,
        element("div", Markup(drawn), class_="figure") if drawn else None,
        film, link, element("dl", *listed), table,
        id=f"run-{place}",
    )  # fmt: skip
