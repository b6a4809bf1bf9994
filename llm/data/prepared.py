"""Rows of files and datasets, read, spelt and measured once, and kept on disk.

What is kept is named by all that it depends on: the content of the sources, the tokenizer with its template, and the
settings.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from llm.data import files, records
from llm.data.chat import Scribe, Spoken
from llm.data.config import DataConfig, SourceConfig
from llm.data.records import Prompt, Unfit
from llm.data.rows import ASKED, TOKENS, Rows, Writer
from unified_irl import parallel
from unified_irl.errors import UserError
from unified_irl.feed import stream
from unified_irl.serialise import content_hash, path_hash

VERSION = 2
"""Goes up when rows are read or spelt in another way."""
REPORT = "report.json"
PATIENCE = 5.0
"""Seconds between two lines of progress."""


@dataclass(frozen=True)
class Prepared:
    """The rows of one kind of data. Of a comparison the chosen side comes first, and the rejected one right after."""

    rows: Rows
    report: list[str]
    """What became of each source's rows, a sentence each."""


class Preparation:
    """How the rows of a run are read and spelt."""

    def __init__(self, config: DataConfig, scribe: Scribe, room: int, seed: int, cache: Path) -> None:
        """`room` is the model's context."""
        self.config, self.scribe, self.seed, self.cache = config, scribe, seed, cache
        self.longest = min(config.max_tokens or room, room)
        self.longest_prompt = min(self.longest, room - config.completion_tokens)
        if self.longest_prompt < 1:
            raise UserError(
                f"data.completion_tokens is {config.completion_tokens}, but the model's context is {room} tokens; let "
                "it be smaller, so that a prompt has room."
            )

    def prepared(self, kind: str) -> Prepared | None:
        """The rows of a kind, from disk where they were prepared before; None where no source is named."""
        source: SourceConfig = getattr(self.config, kind)
        if not source.files:
            return None
        folder = self.cache / "tokens" / f"{kind}-{content_hash(self._facts(kind, source))}"
        return parallel.first_goes(lambda: self._known(folder) or self._made(kind, source, folder))

    def _made(self, kind: str, source: SourceConfig, folder: Path) -> Prepared:
        partial = folder.with_name(f".{folder.name}.{os.getpid()}")
        try:
            partial.mkdir(parents=True, exist_ok=True)
            report = self._write(kind, source, partial)
            (partial / REPORT).write_text(json.dumps(report))
            with contextlib.suppress(OSError):  # another run may have been faster
                shutil.rmtree(folder, ignore_errors=True)
                partial.rename(folder)
            return self._known(folder) or Prepared(Rows.read(partial), report)
        except OSError as error:
            raise UserError(
                f"The tokens of the {kind} cannot be kept in {folder}: {error.strerror or error}; free space, or set "
                "cache to a folder that can be written."
            ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _facts(self, kind: str, source: SourceConfig) -> dict[str, Any]:
        config, tokenizer = self.config, self.scribe.tokenizer
        return {
            "version": VERSION,
            "kind": kind,
            "source": asdict(source),
            "content": [path_hash(Path(one)) for one in source.files],
            "answers": config.answers,
            "longest": (self.longest, self.longest_prompt),
            "seed": self.seed if source.shares else None,
            "tokenizer": tokenizer.backend_tokenizer.to_str(),
            "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
            "template": tokenizer.chat_template,
        }

    def _known(self, folder: Path) -> Prepared | None:
        try:
            return Prepared(Rows.read(folder), json.loads((folder / REPORT).read_text()))
        except (OSError, ValueError, KeyError, SafetensorError):
            return None  # not met before, or damaged: prepared anew

    def _write(self, kind: str, source: SourceConfig, folder: Path) -> list[str]:
        report, told, num_kept = [], time.monotonic(), 0
        with (folder / TOKENS).open("wb") as file, (folder / ASKED).open("wb") as asked_file:
            writer = Writer(file, asked_file)
            for place, name in enumerate(source.files):
                count = kept = 0
                for number, row in self._taken(kind, source, place):
                    if source.most and num_kept == source.most:
                        break
                    count += 1
                    asked, spoken = self._spoken(kind, row, name, number)
                    if all(map(self._fits, spoken)):
                        kept, num_kept = kept + 1, num_kept + 1
                        for one in spoken:
                            writer.add(one, asked)
                    if time.monotonic() - told > PATIENCE:
                        told = time.monotonic()
                        print(f"{kind}: {count} rows of {name}", file=sys.stderr, flush=True)
                report.append(f"{kind}: {kept} of {count} rows of {name}{self._left_out(count - kept)}")
            writer.finish(folder)
        if not num_kept:
            raise UserError(f"No row is left: {'; '.join(report)}. Give other sources, or raise data.max_tokens.")
        return report

    def _fits(self, one: Spoken) -> bool:
        return len(one.tokens) <= self.longest and len(one.prompt) <= self.longest_prompt

    def _left_out(self, count: int) -> str:
        if not count:
            return ""
        return f"; {count} have more than {self.longest} tokens, or {self.longest_prompt} before the answer"

    def _taken(self, kind: str, source: SourceConfig, place: int) -> Iterator[files.Row]:
        asks, streams = self.config.allow_download, self.config.stream
        found = files.rows(source.files[place], source.split, allow_download=asks, stream=streams)
        share = source.shares[place] if source.shares else 1.0
        draw = stream(self.seed, kind, "share", place)
        for number, row in found:
            if share == 1.0 or float(torch.rand((), generator=draw)) < share:
                yield number, row

    def _spoken(self, kind: str, row: Any, name: str, number: int) -> tuple[Prompt, list[Spoken]]:
        scribe = self.scribe
        try:
            if kind == "demonstrations":
                shown = records.shown(row)
                every = self.config.answers == "all"
                return shown.prompt, [scribe.spoken(shown.prompt, shown.reply, all_answers=every)]
            if kind == "preferences":
                compared = records.compared(row)
                sides = (compared.chosen, compared.rejected)
                return compared.prompt, [scribe.spoken(compared.prompt, side) for side in sides]
            asked = records.asked(row)
            return asked, [Spoken(scribe.prompt(asked), [])]
        except Unfit as problem:
            raise UserError(f"{name}, row {number}, {problem}. Mend or remove the row.") from problem
