"""What holds for every test, and commands that run in this process, through the same `main` as the console script."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from commands import Command, Refused, Said, contents

from experiments import cli

# A shell that starts the tests in the background has Ctrl-C ignored, and so would every process that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command in an empty working directory. Whatever it raises that is no exit is a failed test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["unified-irl", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        assert "Traceback" not in said.err + said.out
        return Said(end.value.code if isinstance(end.value.code, int) else 0, said.out, said.err)

    return call


@pytest.fixture
def refused(command: Command) -> Refused:
    """The sentence with which a command is refused; nothing in the working directory changes meanwhile."""

    def call(*words: object) -> str:
        before = contents(Path())
        said = command(*words)
        assert (said.code, said.out) == (2, "")
        assert contents(Path()) == before
        return said.sentence

    return call
