"""What commands answer."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """What it complained of, without the frame that tyro draws around it and without line breaks."""
        return re.sub(r"[\s│─╭╮╰╯]+", " ", self.err).strip()


Command = Callable[..., Said]
Refused = Callable[..., str]


def importable(source: str, name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of somebody's own, which this process can import for the length of a test."""
    (place / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(place)
    monkeypatch.delitem(sys.modules, name, raising=False)


def contents(place: Path) -> dict[str, bytes]:
    """Every file, but for the name of the last process in a lock."""
    files = (path for path in place.rglob("*") if path.is_file() and path.name != "lock")
    return {str(path): path.read_bytes() for path in files}


def blocks(page: str, language: str) -> list[str]:
    """The blocks of code of a page that are in this language and nothing else: `bash before` is another kind."""
    return re.findall(rf"```{language}\n(.*?)```", page, flags=re.S)


def commands_of(page: str) -> list[list[str]]:
    """What the page lets a person type, in order, each without the name of the program."""
    lines = [line.split("#")[0].strip() for block in blocks(page, "bash") for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("unified-irl")]


FASTER = {
    "label": ["--export"],
    "train": ["--method.phases.0.rounds", "5", "--tracking.progress", "quiet"],
    "compare": ["--set", "task.num-demonstrations=16", "method.phases.0.rounds=3", "--workers", "1"],
}
"""Flags that make a command of a page quick without making it another command."""


def launched(count: int, words: list[str]) -> list[subprocess.Popen[str]]:
    """So many processes of Python with one command, as a launcher starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        subprocess.Popen(
            [sys.executable, *words],
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(count)
    ]  # fmt: skip


def ended(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Exit code, output and complaints of each."""
    said = [one.communicate(timeout=240) for one in processes]
    return [(one.returncode, *words) for one, words in zip(processes, said, strict=True)]
