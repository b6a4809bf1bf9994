"""Cells in worker processes: what is finished stays, what fails says why, what crashes takes nobody else along."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from unified_irl.cells import FAILURE, MOST_CRASHES, RESULT, Cell, Outcome, run_cells
from unified_irl.errors import UserError
from unified_irl.rundir import DirectoryLock


def work(config: dict[str, Any], directory: Path) -> None:
    """Does what the config says, and takes note of every time it is begun."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "begun").open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(config.get("seconds", 0.0))
    what = config.get("what")
    if what == "refuse":
        raise UserError("The sun is given; expected the moon.")
    if what == "break":
        raise ZeroDivisionError("one part in none")
    if what == "die" or (what == "die once" and times_begun(directory) == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    (directory / RESULT).write_text(json.dumps({"answer": config["number"]}))


def dies_before_it_makes_its_directory(config: dict[str, Any], directory: Path) -> None:
    if config.get("what") == "die":
        os._exit(7)
    work(config, directory)


def times_begun(directory: Path) -> int:
    return len((directory / "begun").read_text().splitlines())


def cell(number: int, **settings: Any) -> Cell:
    return Cell(name=f"cell-{number}", config={"number": number, **settings})


def answers(outcomes: list[Outcome]) -> list[int | None]:
    return [None if one.result is None else one.result["answer"] for one in outcomes]


def test_outcomes_come_in_the_order_given_and_are_reported_as_they_end(tmp_path: Path) -> None:
    heard: list[tuple[int, int, str]] = []
    cells = [cell(0, seconds=0.5), cell(1), cell(2)]
    outcomes = run_cells(
        cells, tmp_path, work, num_workers=2, report=lambda done, count, one: heard.append((done, count, one.cell.name))
    )
    assert answers(outcomes) == [0, 1, 2]
    assert [one.cell for one in outcomes] == cells
    assert [(done, count) for done, count, _ in heard] == [(1, 3), (2, 3), (3, 3)]
    assert sorted(name for *_, name in heard) == ["cell-0", "cell-1", "cell-2"]


def test_a_finished_cell_is_never_computed_again_and_a_changed_one_lies_elsewhere(tmp_path: Path) -> None:
    run_cells([cell(0), cell(1)], tmp_path, work, num_workers=2)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*") if path.is_file()}
    heard: list[str] = []
    changed = Cell(name="cell-1", config={"number": 11})
    outcomes = run_cells([cell(0), changed], tmp_path, work, report=lambda *it: heard.append(it[2].cell.name))
    assert answers(outcomes) == [0, 11]
    assert heard == ["cell-1"]
    assert changed.directory(tmp_path) != cell(1).directory(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 3


def test_two_matrices_in_one_folder_are_refused(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    with pytest.raises(UserError, match=r"in use|another process|pid"):
        run_cells([cell(0)], tmp_path, work)
    lock.release()
    assert answers(run_cells([cell(0)], tmp_path, work)) == [0]


def test_the_name_of_a_directory_depends_on_the_content_alone(tmp_path: Path) -> None:
    one = Cell(name="c", config={"a": 1, "b": {"c": 2.0}})
    assert one.directory(tmp_path) == Cell(name="c", config={"b": {"c": 2}, "a": 1.0}).directory(tmp_path)
    assert one.directory(tmp_path) != Cell(name="c", config={"a": 1, "b": {"c": 2.5}}).directory(tmp_path)


def test_a_failure_is_written_down_the_others_go_on_and_it_is_tried_again(tmp_path: Path) -> None:
    cells = [cell(0, what="refuse"), cell(1), cell(2, what="break"), cell(3)]
    outcomes = run_cells(cells, tmp_path, work)
    assert answers(outcomes) == [None, 1, None, 3]
    assert outcomes[0].failure == "The sun is given; expected the moon."
    assert outcomes[2].failure == "ZeroDivisionError: one part in none"
    for number in (0, 2):
        stored = json.loads((cells[number].directory(tmp_path) / FAILURE).read_text())
        assert stored["failure"] == outcomes[number].failure
    assert "test_cells.py" in stored["traceback"], "a mistake of ours must say where"
    run_cells(cells, tmp_path, work)
    assert [times_begun(one.directory(tmp_path)) for one in cells] == [2, 1, 2, 1]


def test_a_failure_that_is_mended_leaves_no_trace(tmp_path: Path) -> None:
    one = cell(0)
    one.directory(tmp_path).mkdir()
    (one.directory(tmp_path) / FAILURE).write_text("{}")
    assert answers(run_cells([one], tmp_path, work)) == [0]
    assert not (one.directory(tmp_path) / FAILURE).exists()


def test_a_worker_that_dies_is_replaced_and_its_cell_begun_again(tmp_path: Path) -> None:
    cells = [cell(0, what="die once"), cell(1), cell(2)]
    assert answers(run_cells(cells, tmp_path, work)) == [0, 1, 2]
    assert [times_begun(one.directory(tmp_path)) for one in cells] == [2, 1, 1]


def test_a_cell_that_always_kills_its_worker_fails_alone(tmp_path: Path) -> None:
    """The others take longer than it takes to die three times, and are computed once all the same."""
    cells = [cell(0, what="die"), *(cell(number, seconds=1.5) for number in (1, 2))]
    outcomes = run_cells(cells, tmp_path, work, num_workers=2)
    assert answers(outcomes) == [None, 1, 2]
    assert f"died {MOST_CRASHES} times" in outcomes[0].failure
    assert "signal 9" in outcomes[0].failure
    assert [times_begun(one.directory(tmp_path)) for one in cells] == [MOST_CRASHES, 1, 1]


def test_a_cell_that_dies_before_it_has_a_directory_fails_too(tmp_path: Path) -> None:
    outcomes = run_cells([cell(0, what="die"), cell(1)], tmp_path, dies_before_it_makes_its_directory)
    assert answers(outcomes) == [None, 1]
    assert "exit code 7" in outcomes[0].failure


def test_a_directory_where_nothing_can_be_made_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError) as caught:
        run_cells([cell(0)], tmp_path / "file" / "cells", work)
    assert str(caught.value) == (
        f"The directory {tmp_path / 'file' / 'cells'} cannot be made: Not a directory. Choose another."
    )


def test_a_disk_that_refuses_is_a_failure_in_words(tmp_path: Path) -> None:
    one = cell(0)
    one.directory(tmp_path).write_text("in the way")
    (outcome,) = run_cells([one], tmp_path, work)
    assert outcome.failure == f"{one.directory(tmp_path)}: File exists"


def test_twins_and_no_workers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Several cells are called cell-0; give every cell"):
        run_cells([cell(0), cell(0, seconds=1)], tmp_path, work)
    with pytest.raises(UserError, match="num_workers is 0; expected 1 or more"):
        run_cells([cell(0)], tmp_path, work, num_workers=0)
    assert not list(tmp_path.iterdir())
    assert run_cells([], tmp_path, work) == []


def test_an_interrupted_matrix_leaves_no_worker_behind(tmp_path: Path) -> None:
    """Ctrl-C reaches the whole group of processes; only the matrix answers it."""
    code = (
        "import sys; from pathlib import Path; import test_cells; from unified_irl.cells import run_cells\n"
        "try:\n    run_cells([test_cells.cell(n, seconds=60) for n in (0, 1)], Path(sys.argv[1]), test_cells.work,\n"
        "              num_workers=2)\nexcept KeyboardInterrupt:\n    print('interrupted')"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=Path(__file__).parent, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("*/begun"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        said, complaints = process.communicate(timeout=30)
    assert (said, complaints) == ("interrupted\n", "")
    workers = [int((path / "begun").read_text()) for path in tmp_path.iterdir() if path.is_dir()]
    assert len(workers) == 2
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
