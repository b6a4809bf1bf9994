"""The README does what it says: its commands run in order in an empty folder, its Python runs as written."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import cli
from unified_irl.methods import METHODS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
FASTER = {
    "train": ["--method.phases.0.rounds", "5", "--tracking.progress", "quiet"],
    "compare": ["--set", "task.num-demonstrations=16", "method.phases.0.rounds=3", "--workers", "1"],
    "label": ["--export"],
    "demo": ["--set", "method.phases.0.rounds=3", "--seeds", "2"],
}
"""Flags that make a command of the README quick without making it another command."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


def commands() -> list[list[str]]:
    lines = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("unified-irl")]


def test_commands_run_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNIFIED_IRL_CACHE", str(tmp_path / "cache"))
    seen = commands()
    assert {"doctor", "tasks", "train", "resume", "evaluate", "compare", "collect"} <= {words[0] for words in seen}
    for words in seen:
        monkeypatch.setattr(sys, "argv", ["unified-irl", *words])
        assert cli.run([*words, *FASTER.get(words[0], [])]) == 0, words
    assert "score" in capsys.readouterr().out


def test_python_runs_as_written(tmp_path):
    for number, block in enumerate(blocks("python")):
        script = tmp_path / f"block_{number}.py"
        script.write_text(block)
        done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr


def test_make_targets_named_in_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"make ([a-z-]+)", README)):
        assert re.search(rf"^{target}:", makefile, flags=re.M), target


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_in_the_table(name):
    assert f"| `{name}`" in README


def test_files_linked_in_the_readme_exist():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("http") or (ROOT / link).exists(), link
