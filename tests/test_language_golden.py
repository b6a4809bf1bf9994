"""Every row's first rounds on walks-text through the command line, number by number, as they were when stored.

The model is an untaught one and steps are plain gradients: Adam's first steps are the signs of gradients, and where
those are almost zero two processors would part.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from envs.language.walks_text import WalksText
from envs.language.walks_text_config import WalksTextConfig
from experiments import cli
from llm.codec import word_tokenizer
from llm.config import ModelConfig
from llm.models import small_model
from llm.sizes import Shape
from unified_irl.methods import METHODS
from unified_irl.rundir import read_metrics

torch.set_num_threads(1)
STORED = Path(__file__).parent / "golden" / "walks-text.json"
"""UPDATE_GOLDEN=1 writes it anew."""
FLAGS = (
    "--task.people.num-demonstrations 12 --task.people.num-preferences 12 --task.num-examined 4 --task.num-fresh 4 "
    "--task.device cpu --tracking.progress quiet --run.evaluate-every 1 --method.phases.0.rounds 2 "
    "--method.warm-start.rounds 1 --method.policy-descent.optimiser sgd --method.policy-descent.learning-rate 1.0 "
    "--method.reward-descent.optimiser sgd --method.reward-descent.learning-rate 1.0"
)
SECOND = "--method.phases.1.rounds 1"
COUNTED = {"demonstration_accuracy", "preference_accuracy"}
"""Shares of differences above zero. Those of an implicit reward begin as rounding, and each processor has its own."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model that knows the task's words, and nothing of what they mean."""
    folder, words = tmp_path_factory.mktemp("model"), WalksText(WalksTextConfig(), 0).words
    tokenizer = word_tokenizer(words)
    shape = Shape(layers=1, width=16, heads=2, documents=1, passes=1)
    base = small_model(ModelConfig(), shape, len(tokenizer), 64)
    with torch.no_grad():
        base.get_output_embeddings().weight.mul_(20.0)  # opinions
    base.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("method", METHODS)
def test_the_first_rounds_are_as_they_were(
    method: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIFIED_IRL_CACHE", str(tmp_path / "cache"))
    flags = f"{FLAGS} {SECOND if len(METHODS[method].phases) > 1 else ''}".split()
    run = ["train", "walks-text", method, *flags, "--task.model.path", str(model), "--out", str(tmp_path / "run")]
    assert cli.run(run) == 0
    rows = read_metrics(tmp_path / "run")
    golden: dict[str, list[dict[str, Any]]] = json.loads(STORED.read_text()) if STORED.is_file() else {}
    if os.environ.get("UPDATE_GOLDEN"):
        STORED.parent.mkdir(exist_ok=True)
        STORED.write_text(json.dumps(golden | {method: rows}, indent=1, sort_keys=True) + "\n")
        golden[method] = rows
    assert len(rows) == len(golden[method])
    for row, expected in zip(rows, golden[method], strict=True):
        assert row.keys() == expected.keys()
        kept = {name: value for name, value in expected.items() if name not in COUNTED}
        assert {name: row[name] for name in kept} == pytest.approx(kept, rel=1e-3, abs=1e-4)
