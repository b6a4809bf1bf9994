"""A run directory is never overwritten, never shared, and its metrics are whole rows whatever befell the writer."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unified_irl import environment, rundir
from unified_irl.errors import UserError
from unified_irl.rundir import RunDirectory, read_metrics

HOLD = """
import os, sys, time
from pathlib import Path
from unified_irl.rundir import RunDirectory
run = RunDirectory.open(Path(sys.argv[1]))
if sys.argv[2] == "fork" and os.fork() == 0:
    print(os.getpid(), flush=True)
    time.sleep(60)
    os._exit(0)
if sys.argv[2] == "alone":
    print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "one"


@pytest.fixture
def run(path: Path) -> Iterator[RunDirectory]:
    with RunDirectory.create(path, {"beta": 0.5, "limit": math.inf}, ["unified-irl", "train"]) as made:
        yield made


@contextlib.contextmanager
def another_process(path: Path, how: str = "alone") -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path), how], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def test_a_run_is_made_and_opened_again(run: RunDirectory, path: Path) -> None:
    assert not run.is_finished
    run.append_metrics({"round": 1, "loss": 0.5})
    run.close()
    with RunDirectory.open(path) as again:
        assert again.config == {"beta": 0.5, "limit": "inf"}
        again.append_metrics({"round": 2, "loss": 0.25})
        again.write_result({"return": np.float32(3.5), "worst": -math.inf})
        assert again.is_finished
        assert again.checkpoints == path / "checkpoints"
    assert read_metrics(path) == [{"round": 1, "loss": 0.5}, {"round": 2, "loss": 0.25}]
    assert json.loads((path / "result.json").read_text()) == {"return": 3.5, "worst": "-inf"}
    assert sorted(p.name for p in path.iterdir()) == [
        "config.json",
        "environment.json",
        "lock",
        "metrics.jsonl",
        "result.json",
    ]


def test_the_environment_says_how_to_do_it_again(run: RunDirectory, path: Path) -> None:
    environment = json.loads((path / "environment.json").read_text())
    assert environment["command"] == ["unified-irl", "train"]
    assert environment["torch"] == torch.__version__
    assert environment["packages"]["numpy"] == environment["numpy"] == np.__version__
    assert environment["num_torch_threads"] == torch.get_num_threads()
    assert environment["memory_bytes"] > 2**28
    assert (environment["cuda_device"] is None) == (not torch.cuda.is_available())
    assert environment["started_at"].endswith("+00:00")
    assert all(environment[key] for key in ("python", "platform", "host", "cpu", "num_cores", "num_usable_cores"))


def test_the_repository_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *identity, *arguments], check=True, cwd=tmp_path, capture_output=True)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "module.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environment._describe_repository() == "unknown"
    (tmp_path / "module.py").write_text("a = 1\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "one")
    clean = environment._describe_repository()
    assert (len(clean["commit"]), clean["dirty"], clean["diff"]) == (40, False, None)
    (tmp_path / "module.py").write_text("a = 2\n")
    changed = environment._describe_repository()
    assert changed["commit"] == clean["commit"]
    assert changed["dirty"]
    (tmp_path / "module.py").write_text("a = 3\n")
    assert environment._describe_repository()["diff"] not in (None, changed["diff"])
    monkeypatch.setenv("PATH", "")
    assert environment._describe_repository() == "unknown"


def test_a_run_is_never_overwritten(run: RunDirectory, path: Path) -> None:
    with pytest.raises(UserError, match=r"already holds a run\. Resume it, or choose another directory"):
        RunDirectory.create(path, {}, [])
    run.write_result({})
    with pytest.raises(UserError, match="already holds a finished run"):
        RunDirectory.create(path, {}, [])
    assert run.config["beta"] == 0.5


def test_foreign_directories_and_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UserError, match=r"is not a run directory: it holds thesis\.tex"):
        RunDirectory.create(tmp_path, {}, [])
    assert os.listdir(tmp_path) == ["thesis.tex"]
    with pytest.raises(UserError, match=r"thesis\.tex is a file; expected a directory"):
        RunDirectory.create(tmp_path / "thesis.tex", {}, [])
    with pytest.raises(UserError, match=r"cannot be made: Not a directory\. Choose another"):
        RunDirectory.create(tmp_path / "thesis.tex" / "run", {}, [])
    with pytest.raises(UserError, match=r"is not a run directory: it has no config\.json"):
        RunDirectory.open(tmp_path)
    with pytest.raises(UserError, match=r"There is no run directory .*absent to resume"):
        RunDirectory.open(tmp_path / "absent")


def test_what_a_process_left_that_died_before_the_config_is_no_run(path: Path) -> None:
    path.mkdir(parents=True)
    for name in ("lock", "environment.json", ".config.json.123.tmp"):
        (path / name).write_text("")
    with RunDirectory.create(path, {"a": 1}, []) as run:
        assert run.config == {"a": 1}


@pytest.mark.parametrize(("text", "words"), [("{", "not valid JSON"), ("[]", "no table of settings")])
def test_a_broken_config_is_named_and_the_lock_let_go(run: RunDirectory, path: Path, text: str, words: str) -> None:
    run.close()
    (path / "config.json").write_text(text)
    for _ in range(2):
        with pytest.raises(UserError, match=rf"config\.json.*{words}"):
            RunDirectory.open(path)


def test_a_second_process_is_told_who_holds_the_run(run: RunDirectory, path: Path) -> None:
    with pytest.raises(UserError, match=rf"in use by process {os.getpid()} on .*\(this very process\)\. Wait"):
        RunDirectory.open(path)
    run.close()
    with another_process(path) as (process, _):
        with pytest.raises(UserError, match=rf"process {process.pid} on {os.uname().nodename}\. Wait until"):
            RunDirectory.open(path)
        process.kill()
        process.wait()
        RunDirectory.open(path).close()


def test_a_forked_worker_does_not_keep_the_lock_of_a_killed_run(run: RunDirectory, path: Path) -> None:
    run.close()
    with another_process(path, "fork") as (process, worker):
        with pytest.raises(UserError, match=f"process {process.pid} on"):
            RunDirectory.open(path)
        process.kill()
        process.wait()
        try:
            os.kill(int(worker), 0)
            RunDirectory.open(path).close()
        finally:
            os.kill(int(worker), signal.SIGKILL)


def test_of_two_that_create_at_once_one_wins(path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from unified_irl.rundir import RunDirectory\n"
        "import torch; print('ready', flush=True); sys.stdin.readline()\n"
        "run = RunDirectory.create(Path(sys.argv[1]), {'who': sys.argv[2]}, [])\n"
        "print(sys.argv[2]); sys.stdin.readline()"
    )
    command = [sys.executable, "-c", script, str(path)]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    rivals = [subprocess.Popen([*command, str(n)], text=True, **pipes) for n in range(2)]
    for rival in rivals:
        rival.stdout.readline()  # type: ignore[union-attr]
    for rival in rivals:
        rival.stdin.write("\n")  # type: ignore[union-attr]
        rival.stdin.flush()  # type: ignore[union-attr]
    deadline = time.monotonic() + 60
    while sum(rival.poll() is not None for rival in rivals) < 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    outcomes = [rival.communicate("\n") for rival in rivals]
    winners = [out.strip() for out, _ in outcomes if out.strip()]
    assert len(winners) == 1
    assert json.loads((path / "config.json").read_text()) == {"who": winners[0]}
    assert all("UserError" in err for out, err in outcomes if not out.strip())


def test_a_run_made_between_the_look_and_the_lock_is_seen(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = rundir.DirectoryLock

    def late(directory: Path) -> rundir.DirectoryLock:
        (directory / "config.json").write_text('{"theirs": 1}')
        return lock(directory)

    monkeypatch.setattr(rundir, "DirectoryLock", late)
    with pytest.raises(UserError, match="already holds a run"):
        RunDirectory.create(path, {"ours": 1}, [])
    monkeypatch.undo()
    with RunDirectory.open(path) as run:
        assert run.config == {"theirs": 1}


def test_odd_numbers_are_valid_json_and_come_back(run: RunDirectory, path: Path) -> None:
    row = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": np.float32(0.5), "e": torch.tensor(2), "f": "text"}
    run.append_metrics(row)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    json.loads((path / "metrics.jsonl").read_text(), parse_constant=refuse)
    (back,) = read_metrics(path / "metrics.jsonl")
    assert math.isnan(back.pop("a"))
    assert back == {"b": math.inf, "c": -math.inf, "d": 0.5, "e": 2, "f": "text"}


def test_rows_after_the_checkpoint_vanish(run: RunDirectory, path: Path) -> None:
    assert run.metrics_offset() == 0
    run.append_metrics({"round": 1})
    offset = run.metrics_offset()
    run.append_metrics({"round": 2})
    run.close()
    with RunDirectory.open(path) as again:
        again.truncate_metrics(offset)
        again.append_metrics({"round": 2, "again": True})
        assert read_metrics(path) == [{"round": 1}, {"round": 2, "again": True}]
        again.truncate_metrics(0)
        assert read_metrics(path) == []


def test_an_offset_that_does_not_fit_is_refused(run: RunDirectory) -> None:
    run.append_metrics({"round": 1})
    size = run.metrics_offset()
    with pytest.raises(UserError, match=rf"is {size} bytes long.*when it had {size + 1}: rows were lost"):
        run.truncate_metrics(size + 1)
    with pytest.raises(UserError, match="no row ends at byte 5"):
        run.truncate_metrics(5)


def test_a_torn_last_line_is_left_out_and_then_removed(run: RunDirectory, path: Path) -> None:
    run.append_metrics({"round": 1})
    run.close()
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"round": 2, "lo')
    assert read_metrics(path) == [{"round": 1}]
    with RunDirectory.open(path) as again:
        again.append_metrics({"round": 2})
    assert read_metrics(path) == [{"round": 1}, {"round": 2}]


@pytest.mark.parametrize("line", ["{", "3", "\ufffd"])
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(f'{{"a": 1}}\n{line}\n{{"a": 2}}\n')
    with pytest.raises(UserError, match=r"Line 2 of .*metrics\.jsonl is not a row"):
        read_metrics(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        read_metrics(tmp_path / "other.jsonl")


def test_a_full_disk_tears_no_line(path: Path) -> None:
    """The limit falls in the middle of a row: the row is refused whole, and the rows before it stay."""
    script = """
import resource, sys
from pathlib import Path
from unified_irl.rundir import RunDirectory, read_metrics
from unified_irl.errors import UserError
path = Path(sys.argv[1])
run = RunDirectory.create(path, {}, [])
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    for n in range(1000):
        run.append_metrics({"round": n})
except UserError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
run.append_metrics({"round": n})
assert [row["round"] for row in read_metrics(path)] == list(range(n + 1)), n
resource.setrlimit(resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
try:
    run.write_result({"a": 1})
except UserError as error:
    print(error, run.is_finished)
"""
    command = [sys.executable, "-c", script, str(path)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[0].endswith("metrics.jsonl cannot be written: File too large. Mend that and resume.")
    assert lines[1].endswith("result.json cannot be written: File too large. Mend that and resume. False")
