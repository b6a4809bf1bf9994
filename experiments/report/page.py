"""The page: everything in one HTML file, which asks no network for anything."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files

from experiments.report import figures
from experiments.report.elements import Markup, element, joined
from experiments.report.figures import Figure
from experiments.report.parts import (
    boxed,
    by_task,
    figure,
    named,
    number_cell,
    origin,
    section,
    sortable,
    verdict,
)
from experiments.report.riches import Film, Speech, why_no_films
from experiments.report.runs import runs
from experiments.report.sources import Comparison
from experiments.summary import across, number, tables, tuned, verdicts

Draw = Callable[[Comparison, Sequence[str]], Iterator[Figure]]


def page(title: str, comparisons: Sequence[Comparison], filmed: Sequence[Film], spoken: Sequence[Speech]) -> str:
    """The whole document."""
    methods = list(dict.fromkeys(name for one in comparisons for name in one.methods))
    body = joined(
        element("a", "To the results", href="#results", class_="skip"),
        element("header", element("h1", title), element("p", _lede(comparisons), class_="lede")),
        _filters(comparisons, methods),
        element(
            "main",
            _worlds(comparisons, methods),
            _results(comparisons, methods),
            _figures("scores", "Scores", figures.scores, comparisons, methods),
            _figures("curves", "Learning curves", figures.curves, comparisons, methods, grouped=True),
            _figures("recovery", "Is the learnt reward the true one?", figures.recoveries, comparisons, methods),
            _figures("divergence", "What divergence buys", figures.divergences, comparisons, methods),
            section("films", "Films", _films(filmed, comparisons, methods)),
            section("completions", "Completions", *(_speech(one, comparisons, methods) for one in spoken)),
            runs(comparisons, methods, filmed, spoken),
            _tuning(comparisons),
        ),
        element("dialog", id="run", aria_labelledby="run-title"),
    )
    return f'<!doctype html>\n<html lang="en">\n{_head(title)}\n<body>{body}\n{_script()}</body>\n</html>\n'


def _resource(name: str) -> str:
    return (files("experiments.report") / name).read_text(encoding="utf-8")


def _script() -> Markup:
    return element("script", Markup(_resource("page.js")))


def _head(title: str) -> Markup:
    """The policy lets the page load nothing and run no script but its own."""
    digest = base64.b64encode(hashlib.sha256(_resource("page.js").encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; media-src data:; img-src data:"
    )
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("title", title),
        element("style", Markup(_resource("page.css"))),
    )


def _lede(comparisons: Sequence[Comparison]) -> str:
    rows = [row for one in comparisons for row in one.rows]
    failed = sum(bool(row["failure"]) for row in rows)
    counts = {
        "method": len({row["method"] for row in rows}),
        "task": len({row["task"] for row in rows}),
        "run": len(rows),
    }
    said = ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts.items())
    names = ", ".join(one.name for one in comparisons)
    return f"{names}: {said}; {failed or 'none'} failed. Scores: 0 is the start, 1 the expert."


def _filters(comparisons: Sequence[Comparison], methods: Sequence[str]) -> Markup:
    """What is shown, in all sections at once; the methods are the legend of the page too."""

    def choice(kind: str, name: str, label: Markup) -> Markup:
        box = element("input", type="checkbox", name=kind, value=name, checked=True)
        return element("label", box, element("span", label))

    tasks = [task for one in comparisons for task in one.tasks]
    return element(
        "form",
        element("fieldset", element("legend", "Tasks"), *(choice("task", name, joined(name)) for name in tasks)),
        element("fieldset", element("legend", "Methods"),
                *(choice("method", name, named(name, methods)) for name in methods)),
        element("p", element("button", "Show all", type="reset"), " ", element("output", aria_live="polite")),
        id="filters", aria_label="What is shown",
    )  # fmt: skip


def _worlds(comparisons: Sequence[Comparison], methods: Sequence[str]) -> Markup | None:
    """The same methods, task beside task; nothing where there is only one."""
    headings, lines = across([one.record for one in comparisons])
    if not lines:
        return None
    tasks = headings[1:]
    rows = [
        element("tr", element("th", named(method, methods), scope="row"),
                *(number_cell(text, task) for task, text in zip(tasks, cells, strict=True)), data_method=method)
        for method, *cells in lines
    ]  # fmt: skip
    caption = (
        f"Final scores: means over seeds with 95 % t-intervals; ▲ ahead of and ▼ behind {_against(comparisons)} on the "
        "same seeds, p < 0.05 after Holm's correction."
    )
    table = sortable(joined(caption), headings, rows, numbers_from=1, tasks=(None, *tasks))
    return section("worlds", "Across tasks", table, origin(comparisons))


def _against(comparisons: Sequence[Comparison]) -> str:
    """Those that the others are compared with."""
    return " or ".join(dict.fromkeys(one.methods[-1] for one in comparisons))


def _results(comparisons: Sequence[Comparison], methods: Sequence[str]) -> Markup | None:
    headings, lines = tables([one.record for one in comparisons])
    said = {key: words for one in comparisons for key, words in verdicts(one.record).items()}
    rows = [
        element("tr", element("td", task), element("th", named(method, methods), scope="row"),
                verdict(said[task, method]), *map(number_cell, rest), data_task=task, data_method=method,
                class_=said[task, method].partition(" ")[0])
        for task, method, *rest in lines
    ]  # fmt: skip
    caption = (
        f"Means over seeds with 95 % t-intervals. Differences are paired by seed: the method's final score minus that "
        f"of {_against(comparisons)}. Whoever is ahead or behind is so with p < 0.05 after Holm's correction."
    )
    table = sortable(joined(caption), [*headings[:2], "verdict", *headings[2:]], rows, numbers_from=3)
    return section("results", "Results", table, origin(comparisons))


def _figures(
    name: str,
    title: str,
    draw: Draw,
    comparisons: Sequence[Comparison],
    methods: Sequence[str],
    *,
    grouped: bool = False,
) -> Markup | None:
    """Under headings of their tasks where a task has several, and else in one grid."""
    parts = [
        (one.task, figure(one, of, methods, names_task=not grouped)) for of in comparisons for one in draw(of, methods)
    ]
    grid = element("div", *(part for _, part in parts), class_="figures") if parts else None
    return section(name, title, by_task(parts, "figures") if grouped else grid)


def _films(filmed: Sequence[Film], comparisons: Sequence[Comparison], methods: Sequence[str]) -> Markup | None:
    parts = []
    for one in filmed:
        if one.path is None:
            continue
        title = f"{one.row['task']}, {one.row['method']}, seed {one.row['seed']}"
        data = base64.b64encode(one.path.read_bytes()).decode()
        shown = element(
            "video", controls=True, muted=True, loop=True, playsinline=True, preload="metadata", aria_label=title,
            data_film=f"{one.row['task']}/{one.row['method']}", src=f"data:video/mp4;base64,{data}",
        )  # fmt: skip
        caption = element("figcaption", named(one.row["method"], methods), f", seed {one.row['seed']}")
        parts.append((one.row["task"], element("figure", shown, caption, data_method=one.row["method"], class_="film")))
    missing = [element("p", sentence, class_="absent") for sentence in why_no_films(filmed)]
    if not parts:
        return joined(*missing) if missing else None
    kept = [one for one in comparisons if {task for task, _ in parts} & set(one.tasks)]
    play = element("p", element("button", "Play all", type="button", id="play"), class_="tools")
    return joined(play, by_task(parts, "films"), *missing, origin(kept))


def _speech(one: Speech, comparisons: Sequence[Comparison], methods: Sequence[str]) -> Markup:
    """Prompts down, speakers across."""
    heads = [
        element("th", named(who, methods) if who in methods else who, scope="col",
                data_method=who if who in methods else None)
        for who in one.columns
    ]  # fmt: skip
    rows = [
        element("tr", element("th", prompt, scope="row"), *(
            _completion(said[place], who if who in methods else None, one.arbiter) for who, said in one.columns.items()
        ))
        for place, prompt in enumerate(one.prompts)
    ]  # fmt: skip
    caption = "Prompts that nobody learnt from, one sample each of the first seed's final policy; … was cut off."
    head = element("thead", element("tr", element("th", "prompt", scope="col"), *heads))
    table = element("table", element("caption", caption), head, element("tbody", *rows), class_="speech")
    missing = [element("p", sentence, class_="absent") for sentence in one.absences]
    made = origin([of for of in comparisons if one.task in of.tasks])
    return element(
        "div", element("h3", one.task), boxed(table) if rows else None, *missing, made, class_="task",
        data_task=one.task,
    )  # fmt: skip


def _completion(said: dict[str, object], method: str | None, arbiter: str) -> Markup:
    gold, learnt = said["gold"], said["learnt"]
    true = f"{arbiter} {number(gold)}" if isinstance(gold, float) else ""
    believed = f"learnt {number(learnt)}" if isinstance(learnt, float) else "no learnt reward"
    return element(
        "td", element("p", str(said["text"])),
        element("p", element("b", true), element("span", believed), class_="rewards"),
        data_method=method,
    )  # fmt: skip


def _tuning(comparisons: Sequence[Comparison]) -> Markup | None:
    lines = [element("li", line) for one in comparisons for line in tuned(one.record)]
    what = element("p", "Settings tried on other seeds, by mean final score, before the comparison.")
    return section("tuning", "Tuned", element("details", element("summary", "All tries"), what,
                                              element("ul", *lines)) if lines else None)  # fmt: skip
