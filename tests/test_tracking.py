"""What is logged can be read back: from the metrics file, from TensorBoard, from wandb, and by eye."""

from __future__ import annotations

import builtins
import contextlib
import itertools
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from commands import Command
from rich.console import Console

from experiments.compare_config import CompareConfig
from experiments.matrix import Matrix
from unified_irl.errors import UserError
from unified_irl.rundir import RunDirectory, read_metrics
from unified_irl.tracking import Tracker, TrackingConfig

QUIET = TrackingConfig(progress="quiet")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDirectory]:
    with RunDirectory.create(tmp_path / "run", {"beta": 0.5}, []) as made:
        yield made


def scalars(run: RunDirectory, name: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_metrics_are_always_in_the_file(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    with Tracker(QUIET, run) as tracker:
        tracker.log({"loss": 0.5}, 1)
        tracker.log({"loss": float("inf")}, 2)
        tracker.progress(1, 2, {"loss": 0.5})
    assert read_metrics(run.path) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": float("inf")}]
    assert capsys.readouterr() == ("", "")
    assert not {"wandb", "tensorboard"} & set(os.listdir(run.path))


def test_tensorboard_shows_each_step_once_also_after_a_resume(run: RunDirectory) -> None:
    """Steps 1 to 4 are logged; the run resumes after step 2 and logs 3 and 4 anew, which replace the old ones."""
    config = TrackingConfig(progress="quiet", tensorboard=True)
    with Tracker(config, run) as tracker:
        for step in range(1, 5):
            tracker.log({"train/loss": 1 / 2**step}, step)
    assert scalars(run, "train/loss") == [(1, 0.5), (2, 0.25), (3, 0.125), (4, 0.0625)]
    with Tracker(config, run, first_step=3) as tracker:
        for step in (3, 4):
            tracker.log({"train/loss": float(step)}, step)
    assert scalars(run, "train/loss") == [(1, 0.5), (2, 0.25), (3, 3.0), (4, 4.0)]


WANDB = """
import sys
from pathlib import Path
from unified_irl.rundir import RunDirectory
from unified_irl.tracking import Tracker, TrackingConfig
config = TrackingConfig(progress="quiet", wandb="offline", wandb_project="proj", wandb_group="seeds", wandb_tags=("x",))
with RunDirectory.create(Path(sys.argv[1]), {"some_setting": 7}, []) as run, Tracker(config, run) as tracker:
    tracker.log({"a_metric": 0.5}, 1)
with RunDirectory.open(Path(sys.argv[1])) as run, Tracker(config, run, first_step=2) as tracker:
    tracker.log({"a_metric": 0.25}, 2)
"""


def test_wandb_offline_writes_to_the_run_without_a_network(tmp_path: Path) -> None:
    """Two starts of one run, in a process without any network interface where the system allows that."""
    pytest.importorskip("wandb")
    lonely = ["unshare", "--net", "--map-root-user"]
    if not shutil.which("unshare") or subprocess.run([*lonely, "true"], capture_output=True).returncode:
        lonely = []
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    environment.update(WANDB_DIR=str(tmp_path), HOME=str(tmp_path))
    path = tmp_path / "run"
    command = [*lonely, sys.executable, "-c", WANDB, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    name = (path / "wandb_id.txt").read_text().strip()
    files = sorted((path / "wandb").glob("offline-run-*/*.wandb"))
    assert {file.name for file in files} == {f"run-{name}.wandb"}
    written = b"".join(file.read_bytes() for file in files)
    for word in (b"a_metric", b"0.5", b"0.25", b"some_setting", b"proj", b"seeds"):
        assert word in written
    assert not (tmp_path / "wandb").exists()


def runs_in(folder: Path) -> Iterator[Any]:
    """The descriptions of the runs in wandb's files: records, cut into pieces of blocks, after a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    for file in sorted(folder.glob("**/*.wandb")):
        content, place, whole = file.read_bytes(), 7, b""
        while place + 7 <= len(content):
            if (left := 2**15 - place % 2**15) < 7:
                place += left  # no header fits into the rest of the block
                continue
            size, kind = struct.unpack("<HB", content[place + 4 : place + 7])
            whole += content[place + 7 : place + 7 + size]
            place += 7 + size
            if kind in (1, 4):  # complete, or the last piece
                record, whole = wandb_internal_pb2.Record.FromString(whole), b""
                if record.WhichOneof("record_type") == "run":
                    yield record.run


@pytest.mark.slow
def test_wandb_shows_a_comparison_as_one(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two methods, one of them a variant: one group, a job type each; the labels decide nothing of the cells."""
    pytest.importorskip("wandb")
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    settings = ("task.num-nodes=8", "task.horizon=5", "method.phases.0.rounds=2", "tracking.wandb=offline",
                "tracking.wandb-tags=mine")  # fmt: skip
    words = ["compare", "--methods", "bc", "short", "--variants", "short=bc method.phases.0.rounds=1", "--seeds", 1,
             "--set", *settings]  # fmt: skip
    assert command(*words, "--out", "runs/few").code == 0
    found = {run.display_name: run for run in runs_in(Path("runs/few"))}
    assert set(found) == {"walks-bc-0", "walks-short-0"}
    assert {run.run_group for run in found.values()} == {"walks/few"}
    assert [found[name].job_type for name in ("walks-bc-0", "walks-short-0")] == ["bc", "short"]
    assert set(found["walks-short-0"].tags) == {"mine", "walks", "short", "seed-0"}
    cells = {path.name for path in Path("runs/few/cells").iterdir() if path.is_dir()}
    matrix = Matrix(CompareConfig(methods=("bc",), seeds=1, set=settings, out="elsewhere"))
    (entry,) = matrix.entries("walks", "bc", range(1))
    assert entry.cell.labels["group"] == "walks/elsewhere"
    assert entry.cell.directory(Path()).name in cells


def test_wandb_online_without_a_login_says_what_to_do(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")

    def init(**_: Any) -> None:
        raise wandb.errors.UsageError("No API key configured")

    monkeypatch.setattr(wandb, "init", init)
    with pytest.raises(UserError, match=r"No API key configured\. Run: wandb login\. Or choose wandb offline"):
        Tracker(TrackingConfig(progress="quiet", wandb="online", tensorboard=True), run)


def test_wandb_resumes_one_identity_and_learns_of_failure(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    starts, ends = [], []

    class Fake:
        def finish(self, exit_code: int) -> None:
            ends.append(exit_code)

    def init(**settings: Any) -> Fake:
        starts.append(settings)
        return Fake()

    monkeypatch.setattr(wandb, "init", init)
    config = TrackingConfig(progress="quiet", wandb="online")
    with pytest.raises(ZeroDivisionError), Tracker(config, run):
        raise ZeroDivisionError
    Tracker(config, run).close()
    assert starts[0]["id"] == starts[1]["id"] != ""
    assert {start["resume"] for start in starts} == {"allow"}
    assert {start["dir"] for start in starts} == {run.path}
    assert ends == [1, 0]


@pytest.mark.parametrize(
    ("package", "config", "words"),
    [
        ("torch.utils.tensorboard", TrackingConfig(tensorboard=True), "Run: pip install tensorboard"),
        ("wandb", TrackingConfig(wandb="offline"), "Run: pip install wandb"),
    ],
)
def test_a_missing_package_is_named(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, package: str, config: TrackingConfig, words: str
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **more: Any) -> Any:
        if name == package:
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=words):
        Tracker(config, run)


def lines(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], calls: list[tuple[int, ...]]
) -> list[str]:
    """What is printed when the clock moves on by three seconds with every call."""
    clock = itertools.count(100, 3)
    monkeypatch.setattr("unified_irl.tracking.time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    with Tracker(TrackingConfig(), run) as tracker:
        for done, total in calls:
            tracker.progress(done, total, {"return": 1234.5678, "loss": 0.001, "kl": float("nan"), "hidden": 1.0})
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def test_plain_lines_come_now_and_then(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Calls at 3, 6, ..., 18 s; one line in 5 s at most, and the last round. At 9 s: 2 rounds in 6 s, 37 left."""
    printed = lines(run, monkeypatch, capsys, [(1, 40), (2, 40), (3, 40), (4, 40), (5, 40), (40, 40)])
    assert printed == [
        "round 1/40  elapsed 0:00:03  return 1235  loss 0.001  kl nan",
        "round 3/40  elapsed 0:00:09  left 0:01:51  return 1235  loss 0.001  kl nan",
        "round 5/40  elapsed 0:00:15  left 0:01:45  return 1235  loss 0.001  kl nan",
        "round 40/40  elapsed 0:00:18  return 1235  loss 0.001  kl nan",
    ]


def test_the_time_left_counts_only_rounds_done_since_the_resume(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From round 900: 2 rounds in 6 s leave 98 rounds, that is 294 s."""
    printed = lines(run, monkeypatch, capsys, [(900, 1000), (901, 1000), (902, 1000)])
    assert "left 0:04:54" in printed[-1]


def test_without_a_total_no_time_is_guessed(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    with Tracker(TrackingConfig(progress="lines", print_every_seconds=0), run) as tracker:
        for done in (1, 2):
            tracker.progress(done, None, {})
    assert re.fullmatch(r"round 1  elapsed 0:00:00\nround 2  elapsed 0:00:00\n", capsys.readouterr().err)


def read_all(terminal: int) -> str:
    """A terminal hands out 4096 bytes at a time, and an error once the other side is closed."""
    pieces = []
    with contextlib.suppress(OSError):
        while piece := os.read(terminal, 65536):
            pieces.append(piece)
    os.close(terminal)
    return b"".join(pieces).decode()


def test_a_terminal_gets_a_bar(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real pseudo-terminal stands in for the screen."""
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w") as screen:
        monkeypatch.setattr(sys, "stderr", screen)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "120")
        with Tracker(TrackingConfig(), run) as tracker:
            tracker.progress(1, 4, {"loss": 0.5})
            tracker.progress(4, 4, {"loss": 0.25})
    shown = read_all(ours)
    plain = Console().render_str(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)).plain
    assert "4/4" in plain
    assert "loss 0.25" in plain


def test_the_config_needs_no_torch() -> None:
    code = "import sys, unified_irl.tracking; print({'torch', 'wandb', 'rich', 'pydantic'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
