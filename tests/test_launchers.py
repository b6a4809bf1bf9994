"""Who computes a matrix changes nothing of what comes of it: local processes, Ray, several processes for one cell."""

from __future__ import annotations

import builtins
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_cells import answers, cell, times_begun, work

from experiments.compare import entries_of
from experiments.compare_config import CompareConfig
from experiments.matrix import Matrix
from experiments.suites import SUITES
from experiments.tiny import make
from experiments.train import config_to_json, default_config, run_cell, with_flags
from unified_irl import ray_workers
from unified_irl.cell import ProcessDied, WorkFailed
from unified_irl.cells import FAILURE, MOST_CRASHES, Cell, run_cells
from unified_irl.errors import UserError
from unified_irl.launch_config import Launch
from unified_irl.local_workers import shares_of_gpus
from unified_irl.ray_workers import RayWorkers
from unified_irl.rundir import LABELS
from unified_irl.together import Together

RAY = Launch(launcher="ray")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two processors of Ray's, started once; the matrices are its guests."""
    ray = pytest.importorskip("ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
    yield ray
    ray.shutdown()


def matrix() -> list[Cell]:
    """Two methods, two seeds; long enough to be killed in the middle."""
    settings = ("task.num-nodes=8", "task.horizon=5", "task.num-demonstrations=8", "method.phases.0.rounds=150",
                "run.checkpoint-every=20", "run.evaluate-every=50")  # fmt: skip
    config = CompareConfig(methods=("bc", "aihf"), seeds=2, set=settings)
    return [entry.cell for entry in entries_of(Matrix(config), {})]


def both_worlds() -> list[Cell]:
    """Five methods, two robots and two languages, each for a moment."""
    languages = (f"{task}:task.model.size=seconds" for task in ("walks-text", "reviews"))
    robots = (f"{task}:task.num-examined=2" for task in ("pendulum", "inverted-double-pendulum"))
    settings = ("method.phases.0.rounds=3", "method.warm-start.rounds=1", "task.num-examined=24",
                "run.evaluate-every=0", "run.checkpoint-every=1", *robots, *languages)  # fmt: skip
    methods = ("bc", "dpo", "ml-irl", "direct-aihf", "aihf")
    config = replace(SUITES["two-worlds"], methods=methods, seeds=1, set=settings)
    return [entry.cell for entry in entries_of(Matrix(config), {})]


def kill_in_the_middle(directory: Path, killed: list[list[str]], lines: int) -> None:
    """SIGKILL to whoever holds the cell, once it has saved something; what it had saved."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        saved = sorted(path.name for path in directory.glob("checkpoints/*"))
        if len(saved) > 1 and (directory / "metrics.jsonl").read_bytes().count(b"\n") > lines:
            os.kill(json.loads((directory / "lock").read_text())["pid"], signal.SIGKILL)
            killed.append(saved)
            return
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("made", "mortal", "lines"), [(matrix, 3, 40), pytest.param(both_worlds, 4, 1, marks=pytest.mark.slow)],
    ids=["one task", "both worlds"],
)  # fmt: skip
def test_ray_computes_what_local_processes_do_also_where_a_worker_is_killed(
    made: Callable[[], list[Cell]], mortal: int, lines: int, cluster: Any, tmp_path: Path
) -> None:
    cells, heard = made(), []
    local = run_cells(cells, tmp_path / "local", run_cell, num_workers=2)
    victim, killed = cells[mortal].directory(tmp_path / "ray"), []
    killer = threading.Thread(target=kill_in_the_middle, args=(victim, killed, lines))
    killer.start()
    outcomes = run_cells(
        cells, tmp_path / "ray", run_cell, num_workers=2, launch=RAY, report=lambda *told: heard.append(told)
    )
    killer.join()
    assert len(killed) == 1, "nobody was killed in the middle"
    assert [one.cell for one in outcomes] == cells
    assert [(done, count) for done, count, _ in heard] == [(number + 1, len(cells)) for number in range(len(cells))]
    assert sorted(one.cell.name for *_, one in heard) == sorted(one.name for one in cells)
    for ours, theirs in zip(local, outcomes, strict=True):
        assert (ours.failure, theirs.failure) == ("", "")
        assert {**(ours.result or {}), "seconds": 0} == {**(theirs.result or {}), "seconds": 0}
        places = [one.cell.directory(tmp_path / who) for one, who in ((ours, "local"), (theirs, "ray"))]
        for name in ("metrics.jsonl", "config.json", LABELS):
            assert len({(place / name).read_bytes() for place in places}) == 1
    assert len([path for path in (tmp_path / "ray").iterdir() if path.is_dir()]) == len(cells)


def test_failures_and_deaths_on_ray_are_told_as_ever(cluster: Any, tmp_path: Path) -> None:
    cells = [cell(0, what="refuse"), cell(1, what="die once"), cell(2, what="break"), cell(3, what="die"), cell(4)]
    outcomes = run_cells(cells, tmp_path, work, num_workers=2, launch=RAY)
    assert answers(outcomes) == [None, 1, None, None, 4]
    assert outcomes[0].failure == "The sun is given; expected the moon."
    assert outcomes[2].failure == "ZeroDivisionError: one part in none"
    assert outcomes[3].failure.startswith(f"its process died {MOST_CRASHES} times, at last by WorkerCrashedError (")
    assert "test_cells.py" in json.loads((cells[2].directory(tmp_path) / FAILURE).read_text())["traceback"]
    assert [times_begun(one.directory(tmp_path)) for one in cells] == [1, 2, 1, MOST_CRASHES, 1]


def notes_when(config: dict[str, Any], directory: Path) -> None:
    directory.mkdir()
    began = time.time()
    time.sleep(0.3)
    (directory / "result.json").write_text(json.dumps({"answer": config["number"], "when": [began, time.time()]}))


def test_ray_gives_each_cell_the_processors_it_needs(cluster: Any, tmp_path: Path) -> None:
    """Of two processors, cells of two leave none for another cell at the same time."""
    cells = [cell(number) for number in range(3)]
    launch = Launch(launcher="ray", cpus_per_cell=2)
    outcomes = run_cells(cells, tmp_path, notes_when, num_workers=2, launch=launch)
    assert answers(outcomes) == [0, 1, 2]
    times = sorted(one.result["when"] for one in outcomes if one.result)
    assert all(end <= begin for (_, end), (begin, _) in pairwise(times))


def test_an_interrupted_matrix_leaves_no_task_in_a_cluster_it_visits(cluster: Any, tmp_path: Path) -> None:
    workers = RayWorkers(tmp_path, work, 2, RAY)
    (tmp_path / "lock").touch()
    workers.begin(cell(0, seconds=60))
    begun = cell(0, seconds=60).directory(tmp_path) / "begun"
    while not (begun.exists() and begun.read_text().endswith("\n")):
        time.sleep(0.02)
    workers.close()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{begun.read_text().strip()}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert cluster.is_initialized(), "it was not ours to end"


def test_a_machine_that_does_not_see_the_matrix_says_so(tmp_path: Path) -> None:
    outcome = ray_workers._compute_there(cell(0), tmp_path / "elsewhere", work, tmp_path)
    assert not isinstance(outcome, ray_workers.Death)
    assert outcome.failure.startswith(f"{tmp_path / 'elsewhere'} of the machine that started the matrix is not to be")
    assert outcome.failure.endswith("Let --out be in a directory that all machines share.")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_a_cluster_that_does_not_answer_is_told_at_once(address: str) -> None:
    ray = SimpleNamespace(init=lambda **_: pytest.fail("it would try for minutes"))
    with pytest.raises(
        UserError, match=rf"^The Ray cluster '{address}' cannot be reached: .*refused\. Check --ray-addr"
    ):
        ray_workers._join(ray, 1, Launch(launcher="ray", ray_address=address))


def test_needs_that_no_machine_meets_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A cluster of our own will not grow; another's may."""
    ended: list[bool] = []
    machines = [{"Alive": True, "Resources": {"CPU": 8.0}}, {"Alive": False, "Resources": {"CPU": 8.0, "GPU": 8.0}}]
    ray = SimpleNamespace(nodes=lambda: machines, shutdown=lambda: ended.append(True))
    ray_workers._check_needs(ray, Launch(launcher="ray", cpus_per_cell=8), is_own=True)
    needy = Launch(launcher="ray", gpus_per_cell=0.5)
    with pytest.raises(
        UserError, match=r"needs 1 CPUs and 0\.5 GPUs, and no machine of the Ray cluster has them\. Lower"
    ):
        ray_workers._check_needs(ray, needy, is_own=True)
    assert (ended, capsys.readouterr().err) == ([True], "")
    ray_workers._check_needs(ray, needy, is_own=False)
    assert capsys.readouterr().err.endswith("has them yet; cells wait for one\n")


def test_without_ray_a_sentence_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **more: Any) -> Any:
        if name == "ray":
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        UserError, match=r"^Ray is not installed\. Run: pip install 'unified-irl\[ray\]'\. Or use --launcher"
    ):
        run_cells([cell(0)], tmp_path, work, launch=RAY)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"cpus_per_cell": 0}, "cpus_per_cell is 0; expected 1 or more."),
        ({"processes_per_cell": 0}, "processes_per_cell is 0; expected 1 or more."),
        ({"gpus_per_cell": 1.5}, "gpus_per_cell is 1.5; expected a part of one GPU"),
        ({"gpus_per_cell": -1}, "gpus_per_cell is -1; expected a part of one GPU"),
        ({"gpus_per_cell": 1, "processes_per_cell": 2}, "gpus_per_cell is 1, but 2 processes share a cell;"),
        ({"ray_address": "auto"}, "ray_address is set, but the launcher is local; add --launcher ray"),
    ],
)
def test_impossible_needs_are_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        CompareConfig(**settings)
    assert sentence in str(caught.value)


def test_tasks_of_one_process_are_refused_before_anything_is_computed() -> None:
    with pytest.raises(UserError, match="walks runs in one process, but processes_per_cell is 2; leave it at 1"):
        Matrix(CompareConfig(processes_per_cell=2))


def test_local_workers_get_gpus_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    assert shares_of_gpus(2, 0) == []
    assert [shares_of_gpus(2, 2).pop(), shares_of_gpus(2, 2)[0]] == ["4,5", "6,7"]
    assert sorted(shares_of_gpus(4, 0.5)) == ["4", "4", "5", "5"]
    with pytest.raises(UserError, match=r"3 workers with gpus_per_cell=2 need more GPUs than this machine shows \(4\)"):
        shares_of_gpus(3, 2)


def shares_or_dies(config: dict[str, Any], directory: Path) -> None:
    """The second process does what the config says; the first writes the result."""
    rank = int(os.environ["RANK"])
    with (directory / f"begun-{rank}").open("a") as file:
        file.write(".")
    if rank == 1 and config["what"] == "break":
        raise ZeroDivisionError("one part in none")
    if rank == 1 and config["what"] == "die once" and (directory / "begun-1").read_text() == ".":
        os.kill(os.getpid(), signal.SIGKILL)
    if rank == 0:
        (directory / "result.json").write_text(json.dumps({"answer": int(os.environ["WORLD_SIZE"])}))


def test_what_several_processes_tell_is_judged() -> None:
    """Somebody's own failure before the loss of another, a death before that loss alone."""
    well, broke = (
        {"why": "", "trace": "", "lost_another": False},
        {"why": "broke", "trace": "here", "lost_another": False},
    )
    alone, together = {"why": "alone", "trace": "", "lost_another": True}, Together(work, 2)
    together._judge([well, well])
    for told in ([alone, broke], [broke, None], [None, broke]):
        with pytest.raises(WorkFailed, match="broke"):
            together._judge(told)
    for told in ([alone, None], [None, well]):
        with pytest.raises(ProcessDied, match=r"losing process \d of 2 \(processes\.log has more\)"):
            together._judge(told)
    with pytest.raises(WorkFailed, match="alone"):
        together._judge([alone, well])


@pytest.mark.slow
def test_a_process_of_several_that_dies_or_fails(tmp_path: Path) -> None:
    cells = [cell(0, what="die once"), cell(1, what="break")]
    outcomes = run_cells(cells, tmp_path, shares_or_dies, num_workers=2, launch=Launch(processes_per_cell=2))
    assert answers(outcomes) == [2, None]
    assert outcomes[1].failure == "ZeroDivisionError: one part in none"
    assert "shares_or_dies" in json.loads((cells[1].directory(tmp_path) / FAILURE).read_text())["traceback"]
    assert (cells[0].directory(tmp_path) / "begun-1").read_text() == ".."


def language_cell(tiny: Path, cache: Path) -> Cell:
    """Plain gradient descent, because Adam's first steps are signs, which the order of a sum may turn."""
    words = ["--model", tiny / "model", "--demonstrations", tiny / "ultrachat.jsonl", "--preferences",
             tiny / "ultrafeedback.jsonl", "--task.cache", cache, "--task.data.completion-tokens", 12,
             "--task.num-examined", 7, "--method.phases.0.rounds", 4, "--method.warm-start.rounds", 5,
             "--run.evaluate-every", 1, "--method.policy-descent.optimiser", "sgd",
             "--method.policy-descent.learning-rate", 0.1, "--method.reward-descent.optimiser", "sgd",
             "--method.reward-descent.learning-rate", 0.1, "--tracking.progress", "quiet"]  # fmt: skip
    settings = with_flags("hf", default_config("hf", "aihf"), list(map(str, words)), "train")
    return Cell(name="hf-aihf-0", config=config_to_json("hf", settings))


@pytest.mark.slow
def test_two_processes_share_a_cell_of_a_language_model(tmp_path: Path) -> None:
    make(tmp_path / "tiny", "llama", 40, 0)
    one = language_cell(tmp_path / "tiny", tmp_path / "cache")
    found = []
    for processes in (1, 2):
        root = tmp_path / f"by-{processes}"
        (outcome,) = run_cells([one], root, run_cell, launch=Launch(processes_per_cell=processes))
        assert outcome.failure == ""
        found.append(list(map(json.loads, (one.directory(root) / "metrics.jsonl").read_text().splitlines())))
    alone, together = found
    assert len(alone) == len(together) == 9
    for ours, theirs in zip(alone, together, strict=True):
        assert theirs == pytest.approx(ours, abs=1e-5, rel=1e-5)


INTERRUPTED = """
import sys; from pathlib import Path; import test_cells; from unified_irl.cells import run_cells
from unified_irl.launch_config import Launch
try:
    run_cells([test_cells.cell(n, seconds=600) for n in (0, 1)], Path(sys.argv[1]), test_cells.work, num_workers=2,
              launch=Launch(launcher="ray"))
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_cluster_of_our_own_ends_with_the_matrix(how: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C reaches the whole group of processes; a kill only the matrix."""
    pytest.importorskip("ray")
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path)], cwd=Path(__file__).parent, text=True,
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("*/begun"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(process.pid, how) if how == signal.SIGINT else process.send_signal(how)
        said, _ = process.communicate(timeout=60)
    assert said == ("interrupted\n" if how == signal.SIGINT else "")
    workers = [int((path / "begun").read_text()) for path in tmp_path.iterdir() if path.is_dir()]
    assert len(workers) == 2
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_compare_starts_a_cluster_of_its_own(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quietly, from a folder whose relative paths mean the same to the cells."""
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert command("collect", "walks", "data", "--task.num-nodes", 8, "--task.horizon", 5).code == 0
    settings = ("task.num-nodes=8", "task.horizon=5", "task.demonstrations-file=data/demonstrations.safetensors",
                "method.phases.0.rounds=6")  # fmt: skip
    said = command("compare", "--methods", "bc", "--seeds", 2, "--set", *settings, "--out", "it", "--launcher", "ray")
    assert said.code == 0
    assert [line.split("  ")[0] for line in said.err.splitlines()] == ["cell 1/2", "cell 2/2"]
    assert all(row["commit"] and row["curve"] for row in json.loads(Path("it/results.json").read_text())["cells"])
    short = command("compare", "--out", "short", "--launcher", "ray", "--gpus-per-cell", 64)
    assert short.sentence.startswith("error: a cell needs 1 CPUs and 64 GPUs, and no machine of the Ray cluster")
