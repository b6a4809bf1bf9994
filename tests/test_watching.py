"""What somebody sees who watches a matrix: numbers that are right on a terminal, a line per cell elsewhere."""

from __future__ import annotations

import contextlib
import io
import json
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from experiments import watching
from experiments.watching import View, shown
from unified_irl.cells import RESULT, Cell, Outcome


class Clock:
    """One that goes when it is told to."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(watching, "time", clock)
    return clock


def cell(number: int, *rounds: int, init: str = "random", warm_up: int = 200) -> Cell:
    stages = [{"rounds": count} for count in rounds]
    method = {"init": init, "warm_start": {"rounds": warm_up}, "phases": stages}
    return Cell(name=f"cell-{number}", config={"number": number, "method": method})


def write(one: Cell, root: Path, *rows: dict[str, Any], end: str = "") -> None:
    one.directory(root).mkdir(exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows) + end
    with (one.directory(root) / "metrics.jsonl").open("a") as file:
        file.write(text)


def lines(view: View, width: int = 120) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(view.table())
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_numbers_of_a_matrix(clock: Clock, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Five cells, the first long finished. The second moves 10 rounds in 20 s and has 80 before it: 160 s. The third
    has failed, so what waits is taken to last as long as the second will have: 30 + 160 s; two workers need
    (160 + 190 + 190) / 2 = 270 s."""
    cells = [cell(number, 100) for number in range(5)]
    cells[0].directory(tmp_path).mkdir()
    (cells[0].directory(tmp_path) / RESULT).write_text("{}")
    view = View(cells, tmp_path, 2)
    assert lines(view) == ["5 cells: 1 done, 0 failed, 0 running, 4 waiting  elapsed 0:00:00"]
    for one in cells[1:3]:
        view.begun(one)
    assert lines(view)[1:] == ["  cell-1  begins  elapsed 0:00:00", "  cell-2  begins  elapsed 0:00:00"]
    clock.now += 10
    write(cells[1], tmp_path, {"step": 10, "stage": 0}, {"step": 10, "eval/score": 0.5})
    view.report(2, 5, Outcome(cell=cells[2], result=None, failure="no moon"))
    lines(view)
    clock.now += 20
    write(cells[1], tmp_path, {"step": 20, "eval/score": 0.25}, end='{"step": 2')
    assert lines(view) == [
        "5 cells: 1 done, 1 failed, 1 running, 2 waiting  elapsed 0:00:30  left 0:04:30",
        "  cell-1  round 20/100  score 0.250  elapsed 0:00:30  left 0:02:40",
    ]
    clock.now += 30
    view.report(3, 5, Outcome(cell=cells[1], result={"final": {"score": 0.75}}))
    assert lines(view) == ["5 cells: 2 done, 1 failed, 0 running, 2 waiting  elapsed 0:01:00  left 0:01:00"]
    told = capsys.readouterr()
    assert told.err == "cell 2/5  cell-2  FAILED: no moon\ncell 3/5  cell-1  score 0.750\n"
    assert told.out == ""


def test_stages_that_end_early_shorten_the_way(clock: Clock, tmp_path: Path) -> None:
    """Of 20 + 50 + 30 rounds the second stage stops after 5: 55 in all. Then the cell is taken back to round 22."""
    one = cell(0, 50, 30, init="clone", warm_up=20)
    view = View([one], tmp_path, 1)
    view.begun(one)
    write(one, tmp_path, *({"step": step, "stage": 0} for step in range(1, 21)), {"step": 21, "stage": 1})
    assert "round 21/100" in lines(view)[1]
    write(one, tmp_path, *({"step": step, "stage": 1} for step in range(22, 26)), {"step": 26, "stage": 2})
    assert "round 26/55" in lines(view)[1]
    (one.directory(tmp_path) / "metrics.jsonl").unlink()
    write(one, tmp_path, {"step": 20, "stage": 0}, {"step": 21, "stage": 1}, {"step": 22, "stage": 1})
    assert "round 22/100" in lines(view)[1]


def test_a_long_file_is_read_from_near_its_end(clock: Clock, tmp_path: Path) -> None:
    one = cell(0, 100_000)
    write(one, tmp_path, *({"step": step, "stage": 0} for step in range(1, 20_001)))
    view = View([one], tmp_path, 1)
    view.begun(one)
    assert "round 20000/100000" in lines(view)[1]


def test_a_narrow_terminal_shows_the_beginnings(clock: Clock, tmp_path: Path) -> None:
    view = View([cell(0, 100)], tmp_path, 1)
    view.begun(cell(0, 100))
    assert [len(line) <= 20 for line in lines(view, width=20)] == [True, True]


def test_the_live_view_on_a_terminal_that_changes_its_size(clock: Clock, tmp_path: Path) -> None:
    one, screen = cell(0, 100), io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, height=20)
    view = View([one], tmp_path, 1)
    with shown(view, console):
        view.begun(one)
        write(one, tmp_path, {"step": 7, "eval/score": 0.5})
        console.size = (30, 3)
        deadline = time.monotonic() + 10
        while "round 7" not in screen.getvalue() and time.monotonic() < deadline:
            time.sleep(0.05)
        console.size = (100, 20)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert "1 cells: 0 done, 0 failed, 1 …" in text, "narrow"
    assert "1 cells: 0 done, 0 failed, 1 running, 0 waiting" in text, "and wide again"
    assert "round 7" in text
    assert screen.getvalue().rfind("\x1b[?25h") > screen.getvalue().rfind("\x1b[?25l"), "the cursor is to be seen"


def test_nothing_is_drawn_on_pipes_and_dumb_terminals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for is_terminal, name in ((False, "xterm"), (True, "dumb")):
        monkeypatch.setattr("sys.stderr", SimpleNamespace(isatty=lambda answer=is_terminal: answer, write=None))
        monkeypatch.setenv("TERM", name)
        with watching._view([], tmp_path, 1) as view:
            assert view is None


def test_a_killed_cell_whose_file_vanishes_breaks_nothing(clock: Clock, tmp_path: Path) -> None:
    one = cell(0, 100)
    write(one, tmp_path, {"step": 3, "stage": 0})
    view = View([one], tmp_path, 1)
    view.begun(one)
    with contextlib.suppress(FileNotFoundError):
        (one.directory(tmp_path) / "metrics.jsonl").unlink()
    assert "round 3/100" in lines(view)[1]
