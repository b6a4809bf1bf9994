"""The README does what it says: its commands run in order in an empty folder, its Python runs as written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import FASTER, blocks, commands_of

from experiments import cli, worlds
from experiments.show import markdown
from unified_irl.methods import METHODS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_commands_run_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNIFIED_IRL_CACHE", str(tmp_path / "cache"))
    seen = commands_of(README)
    assert {"doctor", "tasks", "train", "resume", "evaluate", "compare", "collect"} <= {words[0] for words in seen}
    for words in seen:
        monkeypatch.setattr(sys, "argv", ["unified-irl", *words])
        assert cli.run([*words, *FASTER.get(words[0], [])]) == 0, words
    assert "score" in capsys.readouterr().out


def test_python_runs_as_written(tmp_path):
    for number, block in enumerate(blocks(README, "python")):
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


def test_the_table_of_worlds_is_the_generated_one():
    headings, lines, notes = worlds.table()
    assert markdown(headings, lines) in README
    assert all(note in " ".join(README.split()) for note in notes)


def test_files_linked_in_the_readme_exist():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("http") or (ROOT / link).exists(), link
