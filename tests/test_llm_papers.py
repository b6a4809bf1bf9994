"""The papers' experiments: what they name can be built, and runs on small files of the same layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Command

from experiments.tiny import make
from experiments.train import default_config
from llm.papers import PAPERS
from unified_irl.methods import METHODS

torch.set_num_threads(1)
FILES = {
    "hh": ("gpt-neox", "hh", "hh"),
    "tldr": ("gpt-neox", "tldr", "tldr-preference"),
    "spin-data": ("mistral", "spin", ""),
    "ultrachat": ("mistral", "ultrachat", ""),
    "ultrafeedback": ("mistral", "ultrachat", "ultrafeedback"),
}
"""The family of each paper's model, and the files in the layouts of its data."""


@pytest.mark.parametrize("name", PAPERS)
@pytest.mark.parametrize("method", METHODS)
def test_every_experiment_is_a_whole_config(name: str, method: str) -> None:
    """The learning rate falls to nothing exactly where the run ends, whatever stages there are."""
    config = default_config(name, method)
    row = config.method
    steps = sum(phase.rounds * phase.reward_steps for phase in row.stages)
    assert row.policy_descent.total_steps == steps + 1
    assert row.policy_descent.factor(steps) > 0
    assert (row.init == "clone") == (row.stages[0] is row.warm_start)
    if row.init == "clone":  # with the step size of cloning, however short those of the method are
        assert row.warm_start.step_size * row.policy_descent.learning_rate == pytest.approx(2e-5)
    assert config.task.model.path == PAPERS[name].model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {family: tmp_path_factory.mktemp(family) for family in ("gpt-neox", "mistral")}
    for family, folder in folders.items():
        make(folder, family, 40, 0)  # type: ignore[arg-type]
    return folders


def flags(name: str, tiny: dict[str, Path], cache: Path) -> list[Any]:
    """What a small machine changes about a paper's experiment."""
    family, shown, compared = FILES[name]
    folder = tiny[family]
    changed = ["--model", folder / "model", "--demonstrations", folder / f"{shown}.jsonl", "--task.cache", cache,
               "--task.data.completion-tokens", 8, "--task.num-examined", 4, "--method.phases.0.rounds", 2,
               "--method.phases.0.batch-size", 4, "--method.phases.0.prompts", 0.2, "--method.warm-start.rounds", 2,
               "--method.warm-start.batch-size", 4, "--method.phases.0.reward-steps", 2, "--out", "it"]  # fmt: skip
    return [*changed, *(("--preferences", folder / f"{compared}.jsonl") if compared else ())]


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("hh", "rft"), ("tldr", "aihf"), ("spin-data", "spin"), ("ultrachat", "irft"), ("ultrafeedback", "aihf"),
        *(pytest.param("hh", one, marks=pytest.mark.slow) for one in ("bc", "dpo", "rlhf", "aihf")),
        *(pytest.param("ultrafeedback", one, marks=pytest.mark.slow) for one in ("direct-aihf", "self-play-aihf")),
    ],
)  # fmt: skip
def test_experiments_run_on_small_files(
    name: str, method: str, tiny: dict[str, Path], tmp_path: Path, command: Command
) -> None:
    foretells = (name, method) == ("ultrafeedback", "aihf")
    said = command(
        "train", name, method, *flags(name, tiny, tmp_path / "cache"), *(() if foretells else ("--no-forecast",))
    )
    assert said.code == 0
    assert ("this needs about" in said.out) == foretells
    result = json.loads(Path("it/result.json").read_text())
    assert "score" in result["final"]
    config = json.loads(Path("it/config.json").read_text())
    assert config["task"]["model"]["lora"]["rank"] == (64 if PAPERS[name].is_large else 0)
    assert command("export", "it", "out").code == 0
    assert Path("out/reward/config.json").is_file() == (method in ("rft", "rlhf", "aihf"))


def test_the_grid_of_irft(tiny: dict[str, Path], tmp_path: Path, command: Command) -> None:
    """Sections and epochs as flags of one comparison, on a small file."""
    folder = tiny["mistral"]
    said = command(
        "bench", "irft-grid", "--methods", "irft-t1-k1", "irft-t2-k1", "--workers", 1, "--out", "grid", "--variants",
        "irft-t1-k1=irft method.phases.0.rounds=1 method.phases.0.prompts=1 method.phases.0.reward-steps=4",
        "irft-t2-k1=irft method.phases.0.rounds=2 method.phases.0.prompts=0.5 method.phases.0.reward-steps=2",
        "--set", f"task.model.path={folder / 'model'}", f"task.data.demonstrations.files={folder / 'ultrachat.jsonl'}",
        f"task.cache={tmp_path / 'cache'}", "task.data.completion-tokens=8", "task.num-examined=4",
        "method.phases.0.batch-size=4",
    )  # fmt: skip
    assert said.code == 0
    record = json.loads(Path("grid/results.json").read_text())
    assert [(row["method"], row["rounds"]) for row in record["cells"]] == [("irft-t1-k1", 1), ("irft-t2-k1", 2)]
