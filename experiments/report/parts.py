"""Parts of the page: tables, figures and where they come from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from experiments.report.elements import Markup, element, joined
from experiments.report.figures import Figure
from experiments.report.inks import colour_of, dash_of
from experiments.report.sources import Comparison
from experiments.summary import made_with

MARKS = {"ahead": "▲", "level": "=", "behind": "▼", "failed": "✕", "reference": "●", "not": "–"}


def sortable(
    caption: Markup,
    headings: Sequence[str],
    rows: Iterable[Markup],
    numbers_from: int,
    tasks: Sequence[str | None] = (),
) -> Markup:
    """A table in a box of its own, which scrolls where the window is narrow; every heading sorts by its column. `tasks`
    says of columns which task they are about."""
    heads = [
        element("th", element("button", heading, type="button"), scope="col", aria_sort="none",
                class_="number" if place >= numbers_from else None, data_task=tasks[place] if tasks else None)
        for place, heading in enumerate(headings)
    ]  # fmt: skip
    head = element("thead", element("tr", *heads))
    return boxed(element("table", element("caption", caption), head, element("tbody", *rows), class_="sortable"))


def boxed(inside: Markup) -> Markup:
    """A region that scrolls by itself, and by the keyboard too."""
    return element("div", inside, class_="box", tabindex=0, role="region", aria_label="table, scrolls sideways")


def number_cell(text: str, task: str | None = None) -> Markup:
    """A number with its interval set apart; the text is what other tables show."""
    if text == "failed":
        return element("td", text, class_="number failed", data_task=task)
    value, space, rest = text.partition(" ")
    return element("td", value, element("span", space + rest, class_="interval") if rest else None, class_="number",
                   data_task=task)  # fmt: skip


def verdict(said: str) -> Markup:
    """Where a method stands, as a mark and in words."""
    kind = said.partition(" ")[0]
    return element("td", element("span", f"{MARKS[kind]} {said}", class_=f"verdict {kind}"))


def swatch(method: str, methods: Sequence[str]) -> Markup:
    """The line of a method, as the figures draw it."""
    line = f'<line x1="1" x2="23" y1="5" y2="5" stroke-dasharray="{dash_of(method)}"/>'
    kind = f"swatch m{colour_of(method, methods)}"
    return element("svg", Markup(line), viewBox="0 0 24 10", class_=kind, aria_hidden="true")


def named(method: str, methods: Sequence[str]) -> Markup:
    return joined(swatch(method, methods), " ", method)


def figure(one: Figure, comparison: Comparison, methods: Sequence[str], *, names_task: bool) -> Markup:
    """A drawing with its legend, what it shows, and where it comes from; or the sentence instead."""
    legend = [element("li", named(name, methods), data_method=name) for name in one.methods]
    return element(
        "figure",
        element("h4", one.title, element("span", one.task, class_="about") if names_task else None),
        Markup(one.drawing) if one.drawing else None,
        element("ul", *legend, class_="legend") if legend else None,
        element("figcaption", element("p", one.note), origin([comparison]) if one.drawing else None),
        class_=None if one.drawing else "absent",
        data_task=one.task,
    )


def origin(comparisons: Sequence[Comparison]) -> Markup:
    """Commits and hardware in small print, and the command behind them."""
    return joined(
        *(
            element("details", element("summary", made_with(one.record)), element("code", one.record["command"]),
                    class_="origin")
            for one in comparisons
        )
    )  # fmt: skip


def section(name: str, title: str, *inside: Markup | None) -> Markup | None:
    """Nothing where there is nothing inside."""
    kept = [one for one in inside if one]
    return element("section", element("h2", title, id=f"{name}-title"), *kept, aria_labelledby=f"{name}-title",
                   id=name) if kept else None  # fmt: skip


def by_task(parts: Sequence[tuple[str, Markup]], class_: str) -> Markup | None:
    """Parts under the heading of their task."""
    tasks = dict.fromkeys(task for task, _ in parts)
    groups = [
        element(
            "div", element("h3", task), element("div", *(part for of, part in parts if of == task), class_=class_),
            class_="task", data_task=task,
        )
        for task in tasks
    ]  # fmt: skip
    return joined(*groups) if groups else None
