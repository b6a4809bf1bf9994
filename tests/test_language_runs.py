"""Language runs through the command line: every method on every task, kills, and the pages made of runs."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from test_kill import CONSOLE, ENVIRONMENT, must_be_same, outcome

from experiments import cli
from experiments.frontier import gather
from experiments.show import show_result
from experiments.train import default_config, with_flags
from llm.table import TASKS
from unified_irl.methods import METHODS
from unified_irl.rundir import read_metrics

torch.set_num_threads(1)
SETTINGS = (
    "--task.model.size seconds --task.model.layers 1 --task.model.width 16 --task.model.documents 300 "
    "--task.people.num-demonstrations 12 --task.people.num-preferences 12 --task.num-examined 4 --task.num-fresh 4"
)
FEEDBACK = SETTINGS.split()
TINY = [*FEEDBACK, "--tracking.progress", "quiet", "--run.evaluate-every", "2"]
SHORT = {
    "bc": ["--method.phases.0.rounds", "4"],
    "direct-aihf": ["--method.phases.0.rounds", "4"],
    "rlhf": ["--method.warm-start.rounds", "2", "--method.phases.0.rounds", "4", "--method.phases.1.rounds", "2"],
}
USUAL = ["--method.warm-start.rounds", "2", "--method.phases.0.rounds", "2"]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tiny base models of this file are kept."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _cached(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIFIED_IRL_CACHE", str(cache))


def train(task: str, method: str, out: Path, *more: str) -> dict[str, Any]:
    arguments = ["train", task, method, *TINY, *SHORT.get(method, USUAL), "--out", str(out), *more]
    assert cli.run(arguments) == 0
    result: dict[str, Any] = json.loads((out / "result.json").read_text())
    return result


def refusal(arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What is said of bad input, with exit code 2 and no traceback; a box of tyro's is read as one line."""
    monkeypatch.setattr(sys, "argv", ["unified-irl", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    said = capsys.readouterr().err
    assert left.value.code == 2, said
    assert "Traceback" not in said
    return " ".join(said.replace("│", " ").split())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("task", TASKS)
def test_every_method_learns_on_every_task(task: str, method: str, tmp_path: Path) -> None:
    """A few rounds of the defaults, on a tiny model: whatever it has learnt, it is examined and all of it is finite."""
    result = train(task, method, tmp_path / "run")
    final = result["final"]
    assert {"score", "greedy_gold", "unseen/score", "win_rate", "win_rate_at_equal_length", "kl_to_start"} <= set(final)
    assert all(abs(value) < 1e6 for value in final.values()), final
    assert ("reward_accuracy" in final) == (method != "bc")
    assert final["kl_to_start"] != 0.0, "nothing was learnt"


def test_the_defaults_fit_every_row() -> None:
    """No default of a task contradicts another, and a method that climbs a reward compares samples of one prompt."""
    for task in TASKS:
        for method in METHODS:
            config = default_config(task, method)
            assert config.method.name == method
            assert with_flags(task, config, [], "train") == config


def test_runs_of_one_seed_are_alike_and_of_two_are_not(tmp_path: Path) -> None:
    finals = [
        train("walks-text", "aihf", tmp_path / f"{k}", "--seed", str(seed))["final"] for k, seed in enumerate((0, 0, 1))
    ]
    assert finals[0] == finals[1]
    assert finals[0] != finals[2]


def test_adapters_learn_like_models_do(tmp_path: Path) -> None:
    final = train("instructions", "aihf", tmp_path / "run", "--task.model.lora.rank", "2")["final"]
    assert final["kl_to_start"] != 0.0
    state = json.loads((tmp_path / "run" / "config.json").read_text())
    assert state["task"]["model"]["lora"]["rank"] == 2


@pytest.mark.parametrize(
    "method", ["aihf", *(pytest.param(name, marks=pytest.mark.slow) for name in ("rlhf", "self-play-aihf"))]
)
def test_a_killed_run_ends_like_an_undisturbed_one(method: str, cache: Path, tmp_path: Path) -> None:
    """SIGKILL at random moments of the whole process, of which there are three for every method."""
    flags = [*TINY, "--run.checkpoint-every", "2", "--method.warm-start.rounds", "10"]
    flags += ["--method.phases.0.rounds", "14", "--task.people.compared", "task"]
    flags += ["--method.phases.1.rounds", "8"] if method == "rlhf" else []
    flags += ["--task.model.lora.rank", "2"] if method == "self-play-aihf" else []
    environment = ENVIRONMENT | {"UNIFIED_IRL_CACHE": str(cache)}

    def started(arguments: list[str]) -> subprocess.Popen[bytes]:
        with (tmp_path / "said.txt").open("ab") as said:
            return subprocess.Popen([CONSOLE, *arguments], stdout=said, stderr=said, env=environment)

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    fresh = ["train", "walks-text", method, *flags, "--out"]
    assert started([*fresh, str(whole)]).wait() == 0, (tmp_path / "said.txt").read_text()
    draw, landed, most = random.Random(method), 0, len(read_metrics(whole))
    while True:
        process = started(["resume", str(cut)] if (cut / "config.json").exists() else [*fresh, str(cut)])
        if landed < 3:
            wanted = draw.randint(0, most * (landed + 1) // 4)
            while process.poll() is None and (cut / "metrics.jsonl").exists() * _rows(cut) < wanted:
                time.sleep(0.002)
            process.kill()
        code = process.wait()
        if code == 0:
            break
        assert code == -signal.SIGKILL, (tmp_path / "said.txt").read_text()
        landed += 1
    assert landed == 3, "the run was over before it could be killed"
    must_be_same(outcome(cut), outcome(whole))


def _rows(run: Path) -> int:
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_pages_and_frontiers_are_made_of_runs(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train("reviews", "aihf", run)
    assert cli.run(["samples", str(run), "--count", "3"]) == 0
    page = (run / "samples-latest.md").read_text()
    assert page.count("now, likeliest") == 3
    assert cli.run(["frontier", str(tmp_path), "--out", str(tmp_path / "drawn")]) == 0
    (path,) = json.loads((tmp_path / "drawn" / "frontier.json").read_text())["runs"]
    examined = [row for row in read_metrics(run) if "eval/gold" in row]
    assert path["gold"] == [row["eval/gold"] for row in examined]
    assert path["method"] == "aihf"
    assert {one.name for one in (tmp_path / "drawn").glob("*.png")} == {
        "reviews-frontier.png", "reviews-over-optimisation.png",
    }  # fmt: skip
    shutil.copytree(run, tmp_path / "cells/variant")
    (tmp_path / "cells/variant/labels.json").write_text(json.dumps({"name": "variant", "kind": "longer-aihf"}))
    shutil.copytree(run, tmp_path / "tuning/try")
    assert [one["method"] for one in gather(tmp_path)] == ["longer-aihf", "aihf"]


def test_collected_feedback_is_learnt_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """The same demonstrations from a file as from the task give the same run; those of another task are refused."""
    assert cli.run(["collect", "instructions", str(tmp_path / "files"), *FEEDBACK]) == 0
    drawn = train("instructions", "bc", tmp_path / "drawn")["final"]
    file = tmp_path / "files" / "demonstrations.safetensors"
    read = train("instructions", "bc", tmp_path / "read", "--task.people.demonstrations-file", str(file))["final"]
    assert read == drawn
    wrong = ["train", "walks", "bc", "--task.demonstrations-file", str(file), "--out", str(tmp_path / "wrong")]
    assert "'node' is missing" in refusal(wrong, monkeypatch, capsys)


BAD = {
    "--task.model.path /nowhere/at/all": "There is no folder /nowhere/at/all",
    "--method.phases.0.segment 3": "a completion means nothing without its prompt",
    "--task.sampler.max-tokens 1000": "does not fit into the model's context",
    "--task.improve.samples 1": "expected 2 or more",
    "--task.model.width 10 --task.model.heads 4": "cannot be shared by 4 heads",
    "--task.device cuda": "no CUDA device",
}


@pytest.mark.parametrize("flags", BAD)
def test_bad_settings_get_a_sentence(
    flags: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "cuda" in flags and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    arguments = ["train", "walks-text", "aihf", *TINY, *USUAL, "--out", str(tmp_path / "run"), *flags.split()]
    assert BAD[flags] in refusal(arguments, monkeypatch, capsys)


def test_runs_of_other_worlds_have_nothing_to_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--task.num-nodes", "5", "--method.phases.0.rounds", "2", "--tracking.progress", "quiet"]
    assert cli.run(["train", "walks", "bc", *small, "--out", str(tmp_path / "run")]) == 0
    assert "where nothing is said" in refusal(["samples", str(tmp_path / "run")], monkeypatch, capsys)
    assert "no language run" in refusal(["frontier", str(tmp_path)], monkeypatch, capsys)


def test_forgetting_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A likelihood of the demonstrations that fell by 0.5 nats since it was highest is told; one that fell by 0.05 or
    rose is not."""
    rows = [{"step": k, "eval/demonstration_nll": value} for k, value in enumerate((0.9, 0.4, 0.7))]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for last, told in ((0.9, True), (0.45, False), (0.2, False)):
        result = {"final": {"score": 0.0, "demonstration_nll": last}, "best": {"score": 0.0, "round": 1}}
        show_result("a run", result | {"rounds": 3, "seconds": 1.0}, tmp_path)
        assert ("by 0.50 nats a decision" in capsys.readouterr().out) == told
