"""The page of comparisons: the same numbers everywhere, what people wrote as text, and what a browser makes of it."""

from __future__ import annotations

import contextlib
import io
import json
import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Command, Refused
from playwright.sync_api import Browser, Page, sync_playwright

from experiments import cli
from experiments.compare import entries_of, run
from experiments.compare_config import CompareConfig
from experiments.curves import curve_of
from experiments.matrix import Matrix
from experiments.report import figures, svg
from experiments.report.inks import COLOURS, colour_of
from experiments.report.riches import COMPLETIONS
from experiments.report.sources import Comparison, gather
from experiments.summary import across, headings, summary, tables, verdicts
from experiments.train import run_cell
from unified_irl.methods import METHODS

STORED = Path(__file__).resolve().parents[1] / "experiments" / "results"
HOSTILE = '<script>document.title = "taken"</script> <img src=x onerror="document.title=1"> & | "so"'
EXAMINED = ("run.evaluate-every=1", "tracking.progress=quiet")
ROBOTS = CompareConfig(
    tasks=("reacher",),
    methods=("bc", "aihf"),
    variants=(
        "bc=bc method.phases.0.rounds=2",
        "aihf=aihf method.phases.0.rounds=2 method.phases.0.policy-updates=10 method.phases.0.practice=1 "
        "method.phases.0.reward-steps=1 method.phases.0.segment=10",
    ),
    set=("task.sac.hidden=16 16", "task.sac.batch-size=32", "task.sac.learning-starts=50", "task.sac.critic-warmup=0",
         "task.sac.buffer-size=1000", "task.num-examined=2", "task.reward.penalty-points=32", *EXAMINED),
    seeds=2,
)  # fmt: skip
WORDS = CompareConfig(
    tasks=("reviews",),
    methods=("bc", "dpo"),
    set=("task.model.size=seconds", "task.model.layers=1", "task.model.width=16", "task.model.documents=100",
         "task.people.num-demonstrations=12", "task.people.num-preferences=12", "task.num-examined=4",
         "task.num-fresh=4", "method.warm-start.rounds=2", "method.phases.0.rounds=3", *EXAMINED),
    seeds=2,
)  # fmt: skip


def said_by(*words: object) -> str:
    """What a command prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert cli.run([*map(str, words)]) == 0
    return out.getvalue()


def compared(config: CompareConfig, out: Path) -> str:
    """A comparison whose cells are computed in this process, and what is printed of it."""
    from dataclasses import replace

    config = replace(config, out=str(out))
    for entry in entries_of(Matrix(config), {}):
        run_cell(entry.cell.config, entry.cell.directory(out / "cells"))
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert run(config, ["unified-irl", "compare", "--out", out.name]) == 0
    return said.getvalue()


@dataclass(frozen=True)
class Made:
    """Two comparisons in two worlds, a page of both, and what was printed on the way."""

    robots: Path
    words: Path
    page: Path
    printed: dict[str, str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """One cell failed with a hostile sentence, and one completion is hostile too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNIFIED_IRL_CACHE", str(folder / "cache"))
        robots, words, page = folder / "robots", folder / "words", folder / "out" / "page.html"
        printed = {"robots": compared(ROBOTS, robots), "words": compared(WORDS, words)}
        add_a_failure(robots / "results.json")
        said_by("report", words, "--completions", 2)
        (first, *_) = sorted((words / "cells").glob(f"*/{COMPLETIONS}"))
        kept = json.loads(first.read_text())
        kept["speakers"]["now"][0]["text"] = HOSTILE
        first.write_text(json.dumps(kept))
        printed["report"] = said_by("report", robots, words, "--out", page, "--completions", 2)
        yield Made(robots, words, page, printed)
    torch.set_num_threads(threads)


def add_a_failure(path: Path) -> None:
    record = json.loads(path.read_text())
    row = {"task": "reacher", "method": "broken", "seed": 0, "directory": "cells/none", "failure": HOSTILE,
           "commit": "0" * 40, "curve": {}}  # fmt: skip
    record["cells"].insert(0, row)
    path.write_text(json.dumps(record))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's own browser: nothing is downloaded."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs chromium on the path (apt-get install chromium)")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Browser, made: Made) -> Iterator[Page]:
    """The page on a desk. It asks for nothing but itself, and complains of nothing."""
    shown = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
    asked: list[str] = []
    complaints: list[str] = []
    shown.on("request", lambda request: asked.append(request.url))
    shown.on("console", lambda message: complaints.append(message.text))
    shown.on("pageerror", lambda error: complaints.append(str(error)))
    shown.goto(made.page.as_uri())
    yield shown
    assert shown.title() == "Comparison of methods", "nothing that was written by others has run"
    assert [url for url in asked if not url.startswith("data:")] == [made.page.as_uri()]
    assert complaints == []
    shown.close()


def cells_of(page: Page, table: str, *, only_shown: bool = False) -> list[list[str]]:
    rows: list[list[str]] = page.eval_on_selector_all(
        f"{table} tbody tr" + (":not([hidden])" if only_shown else ""),
        "rows => rows.map(row => [...row.cells].map(cell => cell.textContent.trim()))",
    )
    return rows


# The same strings.


def test_numbers_are_the_same_in_terminal_markdown_and_page(made: Made, page: Page) -> None:
    """Every cell of the tables of `summary`, letter by letter."""
    comparisons = gather([made.robots, made.words])
    together, lines = tables([one.record for one in comparisons])
    assert len(lines) == 5
    shown = {(row[0], row[1]): row[3:] for row in cells_of(page, "#results")}
    markdown = made.page.with_suffix(".md").read_text()
    for line in lines:
        assert shown[line[0], line[1]] == list(line[2:])
        assert f" | {' | '.join(line[2:])} |" in markdown
    heads = page.eval_on_selector_all("#results thead th", "heads => heads.map(head => head.textContent)")
    assert heads == [*together[:2], "verdict", *together[2:]]
    heads, lines = across([one.record for one in comparisons])
    assert heads[0] == "method"
    assert cells_of(page, "#worlds") == [list(line) for line in lines]
    assert all(f"| {' | '.join(line)} |" in markdown for line in lines)
    assert all(text in made.printed["report"] for line in lines for text in line)
    for one in comparisons:
        for line in summary(one.record):
            for text in line:
                assert text in made.printed["report"]
    for name in ("robots", "words"):
        record = json.loads((getattr(made, name) / "results.json").read_text())
        record["cells"] = [row for row in record["cells"] if row["method"] != "broken"]
        for line in summary(record):
            assert all(text in made.printed[name] for text in line)
            assert f"| {' | '.join(line)} |" in (getattr(made, name) / "table.md").read_text()


def test_single_runs_are_the_same_in_markdown_and_page(made: Made, page: Page) -> None:
    markdown = made.page.with_suffix(".md").read_text()
    rows = cells_of(page, "#runs")
    assert len(rows) == 9
    for task, method, seed, final, best, _, commit, failure, _ in rows:
        if not failure:
            assert f"| {task} | {method} | {seed} | {final} | {best} | {commit} |  |" in markdown


def test_across_tasks_by_hand() -> None:
    """Three seeds each: a is behind b on the robot by 0.5 or so, level in words, and was not tried elsewhere."""

    def record(task: str, scores: dict[str, list[float]]) -> dict[str, Any]:
        return {"cells": [
            {"task": task, "method": method, "seed": seed, "failure": "", "final": {"score": score}}
            for method, several in scores.items() for seed, score in enumerate(several)
        ]}  # fmt: skip

    robot = record("robot", {"a": [0.1, 0.2, 0.3], "b": [0.6, 0.7, 0.81]})
    words = record("words", {"a": [0.5, 0.6, 0.7], "b": [0.7, 0.6, 0.5]})
    only = record("only", {"b": [1.0, 1.0, 1.0]})
    heads, (a, b) = across([robot, words, only])
    assert heads == ("method", "robot", "words", "only")
    assert a == ("a", "0.200 [-0.048, 0.448] ▼", "0.600 [0.352, 0.848]", "–")
    assert b[0] == "b"
    assert b[3] == "1.000 [1.000, 1.000]"


def test_tables_say_who_is_ahead(made: Made) -> None:
    record = json.loads((made.robots / "results.json").read_text())
    said = verdicts(record)
    assert said["reacher", "broken"] == "failed"
    assert said["reacher", "aihf"] == "reference"
    assert said["reacher", "bc"].endswith(" aihf")
    (line,) = [line for line in summary(record) if line[1] == "broken"]
    assert set(line[2:]) <= {"failed", "–"}
    (robots,) = gather([made.robots])
    (drawn,) = figures.scores(robots, robots.methods)
    assert drawn.drawing.count(">failed</text>") == 1
    stored = json.loads((STORED / "control-quick.json").read_text())
    told = verdicts(stored)
    assert told["pendulum", "bc"] == "behind aihf"
    assert told["pendulum", "rlhf"] == "level with aihf"


def test_a_verdict_follows_the_corrected_p_value() -> None:
    """Differences 1, 1.1, 0.9: t = 10 / (0.1 √(1/3) · 10) = 17.3, p = 0.0033; for the other way round, behind."""

    def row(method: str, seed: int, score: float) -> dict[str, Any]:
        return {"task": "t", "method": method, "seed": seed, "failure": "", "final": {"score": score}}

    scores = {"up": (1.0, 1.1, 0.9), "down": (-1.0, -1.1, -0.9), "same": (0.0, 0.1, -0.1), "last": (0.0, 0.0, 0.0)}
    record = {"cells": [row(name, seed, one) for name, three in scores.items() for seed, one in enumerate(three)]}
    assert verdicts(record) == {
        ("t", "up"): "ahead of last", ("t", "down"): "behind last", ("t", "same"): "level with last",
        ("t", "last"): "reference",
    }  # fmt: skip
    del record["cells"][0]["final"]
    assert verdicts(record)["t", "up"] == "not paired"


# What others wrote.


def test_what_others_wrote_is_text(made: Made, page: Page) -> None:
    text = made.page.read_text()
    assert HOSTILE not in text
    assert "<img" not in text
    assert "&lt;script&gt;document.title" in text
    assert page.locator("#runs td.failure").first.inner_text() == HOSTILE
    assert HOSTILE in page.locator("#completions").inner_text()
    assert "<script" not in made.page.with_suffix(".md").read_text()


# Films and completions.


def test_films_and_completions_are_made_once(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made anew they would differ in their time; and nothing is loaded."""

    def never(*_: object) -> None:
        raise AssertionError("it is there already")

    monkeypatch.setattr("experiments.language_runs.load", never)
    if list(made.robots.glob("cells/*/report-film.mp4")):
        monkeypatch.setattr("experiments.robot_runs.stored_config", never)
    said_by("report", made.robots, made.words, "--out", tmp_path / "again.html", "--completions", 2)
    assert (tmp_path / "again.html").read_text() == made.page.read_text()


def test_films_are_small(made: Made) -> None:
    films = list(made.robots.glob("cells/*/report-film.mp4"))
    assert all(film.stat().st_size < 150_000 for film in films)
    told = made.printed["report"]
    assert "No film of reacher broken: <script>" in told
    assert len(films) == 2 or "No film of reacher bc" in told


def test_completions_stand_side_by_side(made: Made, page: Page) -> None:
    heads = page.eval_on_selector_all("#completions thead th", "heads => heads.map(head => head.textContent.trim())")
    assert heads == ["prompt", "at first", "bc", "dpo"]
    rows = cells_of(page, "#completions")
    kept = [json.loads(path.read_text()) for path in sorted((made.words / "cells").glob(f"*/{COMPLETIONS}"))]
    assert [row[0] for row in rows] == kept[0]["prompts"] == kept[1]["prompts"]
    for place, row in enumerate(rows):
        for column, told in ((2, kept[0]), (3, kept[1])):
            one = told["speakers"]["now"][place]
            learnt = "no learnt reward" if one["learnt"] is None else f"learnt {one['learnt']:.3f}"
            assert row[column] == f"{one['text']}true reward {one['gold']:.3f}{learnt}"


def test_stored_results_alone_make_a_page(command: Command) -> None:
    """Without the runs there are the numbers, the curves that were stored, and sentences."""
    said = command("report", STORED / "control-quick.json", STORED / "language-walks.json", "--out", "it.html")
    assert said.code == 0
    text = Path("it.html").read_text()
    gone = "the run&#x27;s directory is not beside the results"
    assert f"No film of pendulum, inverted-double-pendulum: {gone}." in text
    assert f": {gone}.</p>" in text
    assert "Against simulated steps" in text
    assert "their directories are gone" in text
    assert "<video" not in text
    assert "unified-irl bench language-walks --workers 1" in text
    assert "No film of pendulum" in said.out


def test_a_task_of_two_comparisons_is_called_by_both_names(command: Command) -> None:
    files = [STORED / f"language-walks-{number}.json" for number in (25, 75)]
    assert command("report", *files, "--out", "it.html", "--completions", 0, "--no-films").code == 0
    assert "walks-text (language-walks-25)" in Path("it.md").read_text()
    assert "walks-text (language-walks-75)" in Path("it.md").read_text()


def test_compare_writes_the_page_unless_it_is_told_not_to(made: Made, command: Command) -> None:
    assert "</html>" in (made.words / "report.html").read_text()
    assert (made.words / "report.md").read_text().startswith("# Comparison of methods\n")
    assert command("compare", "--redraw", made.words / "results.json", "--out", "it", "--no-report").code == 0
    assert Path("it/table.md").exists()
    assert not Path("it/report.html").exists()


def test_refusals(refused: Refused, tmp_path: Path) -> None:
    assert "holds no results.json; give the directory that `compare` wrote" in refused("report", tmp_path / "nowhere")
    assert "expected a name that ends in .html" in refused("report", STORED / "language.json", "--out", "page.pdf")
    assert "is no record of a comparison" in refused("report", STORED / "convergence.json", "--out", "it.html")
    assert "'report' needs DIRECTORY" in refused("report")


# Figures.


def test_a_curve_knows_its_axes(tmp_path: Path) -> None:
    """Comparisons answered so far, also in rounds that ask for none; minutes from the clock."""
    rows = [
        {"step": 1, "num_asked": 8.0, "env_steps": 100.0},
        {"step": 2, "num_asked": 16.0, "env_steps": 200.0, "eval/score": 0.5},
        {"step": 3, "env_steps": 300.0},
        {"step": 4, "env_steps": 400.0, "eval/score": 1.0},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "clock.jsonl").write_text('{"step": 2, "seconds": 60}\n{"step": 4, "seconds": 90}\n')
    assert curve_of(tmp_path) == {
        "share": [0.5, 1.0], "score": [0.5, 1.0], "steps": [200.0, 400.0], "minutes": [1.0, 1.5],
        "labels": [16.0, 16.0],
    }  # fmt: skip


def test_a_band_is_the_interval_of_the_mean() -> None:
    """Two seeds, 0 and 1 at the end: 0.5 ± 12.706 · √0.5 / √2 = 0.5 ± 6.353; before both are known there is nothing."""
    runs = [{"share": np.array([0.5, 1.0]), "score": np.array([0.0, 0.0])},
            {"share": np.array([0.25, 1.0]), "score": np.array([1.0, 1.0])}]  # fmt: skip
    line = figures._curve("bc", runs, "share")
    assert (line.y[-1], line.low[-1], line.high[-1]) == pytest.approx((0.5, 0.5 - 6.353, 0.5 + 6.353), abs=1e-3)
    known = [x for x, y in zip(line.x, line.y, strict=True) if math.isfinite(y)]
    assert known[0] == 0.5


def test_where_nobody_asked_there_is_a_sentence(made: Made) -> None:
    (robots,) = gather([made.robots])
    absent = [one for one in figures.curves(robots, robots.methods) if not one.drawing]
    assert [one.title for one in absent] == ["Against comparisons answered while learning"]
    assert "had all of the 100 comparisons from their first round" in absent[0].note


def test_comparisons_are_an_axis_where_somebody_asked() -> None:
    curve = {"share": [0.5, 1.0], "score": [0.2, 0.8], "labels": [8.0, 16.0]}
    rows = [{"task": "t", "method": "aihf", "seed": seed, "directory": "", "curve": curve} for seed in range(2)]
    asking = Comparison(name="x", record={"cells": rows}, folder=Path())
    drawn = {one.title: one for one in figures.curves(asking, ["aihf"])}
    assert "<polyline" in drawn["Against comparisons answered while learning"].drawing


def test_words_have_paths_of_divergence(made: Made) -> None:
    (words,) = gather([made.words])
    drawn = list(figures.divergences(words, words.methods))
    assert [one.title for one in drawn] == ["Divergence and true reward", "Over-optimisation"]
    assert drawn[0].drawing.count("<polyline") == 4
    assert drawn[1].methods == ("dpo",)
    assert [one.task for one in figures.recoveries(words, words.methods)] == ["reviews"] * 2


def test_every_method_of_the_table_has_a_colour_of_its_own() -> None:
    assert set(COLOURS) == set(METHODS)
    assert len(set(COLOURS.values())) == len(COLOURS)
    here = ["longer-bc", "bc", "aihf"]
    assert colour_of("longer-bc", here) not in {COLOURS["bc"], COLOURS["aihf"]}


@pytest.mark.parametrize("values", [[0.0], [3.0, 3.0], [-1e6, 1e6], [1e-9, 2e-9], [math.nan, 1.0], [math.nan]])
def test_any_numbers_can_be_drawn(values: list[float]) -> None:
    frame = svg.Frame(title="t", x_label="x", y_label="y")
    drawing = svg.lines([svg.Line(method="bc", x=range(len(values)), y=values)], frame, ["bc"])
    assert "nan" not in drawing
    assert drawing.count("<svg") == drawing.count("</svg>") == 1
    assert svg.dots([], frame, ["bc"]).startswith("<svg")


# In a browser.


def test_every_column_sorts(page: Page) -> None:
    """Numbers from the greatest, then from the least; those that failed come last both times."""
    heads = page.locator("#results thead th")
    for column in range(heads.count()):
        head = heads.nth(column)
        assert head.get_attribute("aria-sort") == "none"
        head.get_by_role("button").click()
        orders = [head.get_attribute("aria-sort")]
        first = [row[column] for row in cells_of(page, "#results")]
        head.get_by_role("button").press("Enter")
        orders.append(head.get_attribute("aria-sort"))
        second = [row[column] for row in cells_of(page, "#results")]
        assert page.locator("#results [aria-sort=ascending], #results [aria-sort=descending]").count() == 1
        if column < 3:
            assert orders == ["ascending", "descending"]
            assert first == second[::-1] == sorted(first)
            continue
        for order, texts in zip(orders, (first, second), strict=True):
            known = [text for text in texts if text not in ("failed", "–")]
            numbers = [float(text.split()[0]) for text in known]
            assert texts[: len(known)] == known
            assert numbers == sorted(numbers, reverse=order == "descending")


def until(page: Page, truth: str) -> None:
    """Asked from outside: what waits within the page is refused by the page's own policy."""
    deadline = time.monotonic() + 30
    while not page.evaluate(truth):
        assert time.monotonic() < deadline, truth
        page.wait_for_timeout(50)


def test_filters_hold_in_every_section(page: Page) -> None:
    def shown(selector: str) -> set[str]:
        return set(page.eval_on_selector_all(
            selector, "all => all.filter(one => one.getClientRects().length).map(one => one.dataset.method)"
        ))  # fmt: skip

    everywhere = ("#results tr[data-method]", "#scores g[data-method]", "#curves g[data-method]",
                  "#runs tr[data-method]", "#curves li[data-method]")  # fmt: skip
    assert page.locator("#filters output").inner_text() == "9 of 9 runs"
    page.locator("#filters label", has_text="bc").click()
    for selector in everywhere:
        assert "bc" not in shown(selector)
        assert "aihf" in shown(selector)
    assert shown("#completions td[data-method]") == {"dpo"}
    assert page.locator("#filters output").inner_text() == "5 of 9 runs"
    page.locator("#filters label", has_text="reacher").click()
    assert {row[0] for row in cells_of(page, "#results", only_shown=True)} == {"reviews"}
    assert not page.locator("#curves h3", has_text="reacher").is_visible()
    assert page.locator("#curves h3", has_text="reviews").is_visible()
    page.get_by_role("button", name="Show all").click()
    until(page, "document.querySelectorAll('[data-task][hidden], [data-method][hidden]').length === 0")


def test_a_run_opens(made: Made, page: Page) -> None:
    page.get_by_role("button", name="open reacher aihf seed 0").press("Enter")
    dialog = page.get_by_role("dialog", name="reacher, aihf, seed 0")
    assert dialog.is_visible()
    text = dialog.inner_text()
    (config,) = made.robots.glob("cells/reacher-aihf-0-*/config.json")
    assert str(config) in text
    assert "unified-irl compare --out robots" in text
    assert "reward/return_spearman" in text
    assert dialog.locator("svg polyline").count() == 1
    assert dialog.locator("video").count() == len(list(config.parent.glob("*.mp4")))
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    page.get_by_role("button", name="open reacher broken seed 0").click()
    assert HOSTILE in page.get_by_role("dialog").inner_text()
    page.get_by_role("button", name="close").click()
    page.get_by_role("button", name="open reviews dpo seed 0").click()
    page.get_by_role("link", name="What it says").click()
    assert page.get_by_role("dialog").count() == 0
    assert page.url.endswith("#completions")


def test_films_play(made: Made, page: Page) -> None:
    if not list(made.robots.glob("cells/*/report-film.mp4")):
        pytest.skip("nothing can be drawn on this machine, and the page says so")
    page.get_by_role("button", name="Play all").click()
    until(page, "[...document.querySelectorAll('video')].every(film => film.currentTime > 0.1)")
    assert page.locator("video").count() == 2


def test_on_a_phone_only_tables_scroll_sideways(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.evaluate("(box => box.scrollWidth > box.clientWidth)(document.querySelector('#results .box'))")
    page.locator("[data-run]").nth(1).click()
    assert page.evaluate("(one => one.scrollWidth <= one.clientWidth)(document.querySelector('dialog'))")


def test_the_dark_is_dark(page: Page) -> None:
    def brightness(selector: str, of: str) -> int:
        colour = page.eval_on_selector(selector, f"one => getComputedStyle(one).{of}")
        return sum(map(int, colour.removeprefix("rgb(").rstrip(")").split(",")))

    looks = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        looks[scheme] = [brightness("body", "backgroundColor"), brightness("body", "color"),
                         brightness("#scores .m7 circle", "fill")]  # fmt: skip
    assert looks["light"][0] > 700 > 200 > looks["light"][1]
    assert looks["dark"][0] < 100 < 600 < looks["dark"][1]
    assert looks["dark"][2] > looks["light"][2]


def test_the_page_is_read_aloud_in_order(page: Page) -> None:
    """Headings never skip a level; every table has a caption, every drawing a name, every box the keyboard."""
    levels = page.eval_on_selector_all("h1, h2, h3, h4", "all => all.map(one => +one.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert page.eval_on_selector_all("table", "all => all.every(one => one.caption)")
    assert page.eval_on_selector_all("figure > svg", "all => all.every(one => one.getAttribute('aria-label'))")
    assert page.eval_on_selector_all(".box", "all => all.every(one => one.tabIndex === 0)")


def test_every_figure_and_table_says_where_it_comes_from(made: Made, page: Page) -> None:
    for name in ("results", "runs", "films", "completions"):
        if page.locator(f"#{name}").count():
            assert "unified-irl compare --out" in (page.locator(f"#{name}").text_content() or "")
    drawn = page.eval_on_selector_all("figure:has(> svg)", "all => all.map(one => one.textContent)")
    assert len(drawn) >= 8
    assert all("unified-irl compare --out" in text and "commit" in text and "cores" in text for text in drawn)
    assert headings(gather([made.robots])[0].record)[0] == "task"
