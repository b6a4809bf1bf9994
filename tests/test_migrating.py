"""What the page on migrating says of us is so: its commands run in order, its Python runs, its flags exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import FASTER, Command, blocks, commands_of

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "migrating.md").read_text()


def test_what_comes_after_runs_as_written(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNIFIED_IRL_CACHE", str(tmp_path / "cache"))
    for words in commands_of(PAGE):
        said = command(*words, *FASTER.get(words[0], []))
        assert said.code == 0, (words, said.err)
    for number, block in enumerate(blocks(PAGE, "python")):
        script = tmp_path / f"block_{number}.py"
        script.write_text(block)
        done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr


def test_every_move_shows_before_and_after() -> None:
    sections = re.split(r"^## From ", PAGE, flags=re.M)[1:]
    assert [section.split()[0] for section in sections] == ["`imitation`", "TRL", "SPIN"]
    for section in sections:
        assert re.search(r"```(python|bash) before\n", section)
        assert commands_of(section)
        assert "**Gained.**" in section
        assert "**Not here.**" in section


def test_every_flag_that_is_named_exists(command: Command) -> None:
    runs = (("pendulum", "aihf"), ("hf", "rlhf"), ("walks", "ml-irl"))
    known = (
        "".join(command("train", *words, "--help").out for words in runs)
        + command("collect", "walks", "it", "--help").out
    )
    for flag in re.findall(r"--(?:task|method)[\w.-]+", PAGE):
        assert re.search(rf"{re.escape(flag)}\b", known), flag
