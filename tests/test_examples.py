"""The examples run exactly as they are written, are short, and learn."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
MOST_LINES, MOST_SECONDS = 40, 20


def number(pattern: str, said: str) -> float:
    found = re.search(pattern, said)
    assert found is not None, said
    return float(found[1])


def learns_an_environment(said: str) -> bool:
    return number(r"return +│ +(-?[\d.]+)", said) > -3  # a cart at rest has about −16 in the mean, the controller −0.3


def learns_a_model(said: str) -> bool:
    return number(r"score +│ +(-?[\d.]+)", said) > 0.2 and "model.safetensors" in said


def learns_data(said: str) -> bool:
    return (
        number(r"policy_accuracy +│ +(-?[\d.]+)", said) == 1 and number(r"demonstration_nll +│ +([\d.]+)", said) < 0.1
    )


def learns_by_a_method(said: str) -> bool:
    return number(r"curious-aihf: ([\d.]+)", said) > number(r"bc: ([\d.]+)", said)


def learns_a_domain(said: str) -> bool:
    return number(r"(\d+) promises kept", said) == 160 and abs(number(r"'score': ([\d.]+)", said) - 0.9) < 0.02


LEARNS = {
    "own_environment": learns_an_environment,
    "own_model": learns_a_model,
    "own_data": learns_data,
    "own_method": learns_by_a_method,
    "own_domain": learns_a_domain,
}
DEAR = {"own_environment", "own_model"}
"""A quarter of a minute each."""


def test_there_is_one_for_everything_that_can_be_ones_own() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(LEARNS)
    lengths = {path.name: len(path.read_text().splitlines()) for path in EXAMPLES.glob("*.py")}
    assert not {name: length for name, length in lengths.items() if length > MOST_LINES}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in DEAR else name for name in LEARNS]
)
def test_it_runs_as_written_and_learns(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In seconds of a processor, since other tests may keep this machine busy; and it leaves nothing behind."""
    monkeypatch.setenv("UNIFIED_IRL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "here").mkdir()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py"], cwd=tmp_path / "here", capture_output=True, text=True, timeout=300
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert LEARNS[name](done.stdout), done.stdout
    assert after.ru_utime - before.ru_utime < MOST_SECONDS
    assert not list((tmp_path / "here").iterdir())
