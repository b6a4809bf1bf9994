"""What a run will need, foretold within a fifth of what it then needs."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPTNeoXConfig

from experiments.tiny import make
from experiments.train import TrainConfig, build_learner, default_config, with_flags
from unified_irl import run
from unified_irl.rehearsal import rehearse
from unified_irl.rundir import RunDirectory
from unified_irl.tracking import TrackingConfig

CONFIGS = {
    "bc": ("--method.phases.0.rounds", "150"),
    "spin": ("--method.warm-start.rounds", "40", "--method.phases.0.rounds", "40"),
    "aihf": ("--method.warm-start.rounds", "40", "--method.phases.0.rounds", "12"),
}
"""Cloning alone; ratios against own samples; a reward, and a policy that climbs it."""
FIFTH = 0.2


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("tiny")
    make(folder, "gpt-neox", 200, 0)
    return ["--model", f"{folder}/model", "--demonstrations", f"{folder}/ultrachat.jsonl", "--preferences",
            f"{folder}/ultrafeedback.jsonl", "--task.data.completion-tokens", "16", "--task.cache", f"{folder}/cache",
            "--tracking.progress", "quiet"]  # fmt: skip


def config_of(method: str, flags: list[str]) -> TrainConfig:
    return with_flags("hf", default_config("hf", method), [*flags, *CONFIGS[method]], "forecast")


@pytest.mark.slow
@pytest.mark.parametrize("method", CONFIGS)
def test_time(method: str, flags: list[str], tmp_path: Path) -> None:
    """In seconds of work, which do not depend on who else uses the machine."""
    config = config_of(method, flags)
    foretold = rehearse(build_learner("hf", config), config.run).seconds
    learner = build_learner("hf", config)
    began = time.process_time()
    with RunDirectory.create(tmp_path / "run", {}, ["test"]) as directory:
        run.train(learner, directory, config.run, TrackingConfig(progress="quiet"))
    measured = (time.process_time() - began) / torch.get_num_threads()
    assert foretold == pytest.approx(measured, rel=FIFTH)


@pytest.mark.slow
@pytest.mark.parametrize("method", CONFIGS)
def test_memory(method: str, flags: list[str], tmp_path: Path) -> None:
    """With a model that is larger than the program: most of what is held are weights, gradients and their moments."""
    where = dict(zip(flags[::2], flags[1::2], strict=True))
    tokenizer = AutoTokenizer.from_pretrained(where["--model"])
    shape = GPTNeoXConfig(hidden_size=512, num_hidden_layers=8, num_attention_heads=8, intermediate_size=2048,
                          vocab_size=len(tokenizer), max_position_embeddings=256)  # fmt: skip
    AutoModelForCausalLM.from_config(shape).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    where["--model"] = str(tmp_path / "model")
    short = ["--method.phases.0.rounds", "2", "--task.num-examined", "4"]
    short += ["--method.warm-start.rounds", "2"] * (method != "bc")
    said = [word for flag in where.items() for word in flag] + short
    _, foretold = peak("forecast", "hf", method, *said)
    measured, _ = peak("train", "hf", method, *said, "--out", str(tmp_path / "run"))
    gibibytes = float(re.search(r"([0-9.]+) GiB", foretold)[1])  # type: ignore[index]
    assert gibibytes == pytest.approx(measured, rel=FIFTH)
    assert measured > 1.0


def peak(*command: str) -> tuple[float, str]:
    """The most memory that a command held, in GiB, and what it said."""
    measured = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    program = f"import sys; from experiments.cli import run; run(sys.argv[1:]); {measured}"
    said = subprocess.run([sys.executable, "-c", program, *command], capture_output=True, text=True, check=True).stdout
    return int(said.split()[-1]) / 2**20, said
