"""Rows of tokens one behind the other in a file, of which only those asked for come into memory.

`Answers` and `Prompts` are such rows as the core's behaviours and contexts: they have the fields that are small, and
become whole `Trajectories` and `Contexts` when some of their rows are taken.

Shape legend: N tokens, R rows, S answers, B behaviours, T columns.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from llm.data.chat import Spoken
from llm.data.records import Prompt
from unified_irl.trajectories import Contexts, Index, Trajectories

TOKENS, ASKED, PLACES = "tokens.bin", "asked.jsonl", "places.safetensors"


@dataclass(frozen=True)
class Rows:
    """Rows, and where the answers in them lie."""

    token_N: Tensor
    """int32."""
    begin_R: Tensor
    """long[R + 1]: where each row begins, and where the last one ends."""
    answer_S2: Tensor
    """long[S, 2]: from where to where within its row an answer goes."""
    first_R: Tensor
    """long[R + 1]: the first of each row's answers."""
    line_R: Tensor
    """long[R]: where in its file the text of what was asked begins."""
    asked_file: Path

    def asked(self, row: int) -> Prompt:
        """What was asked, as it was written."""
        with self.asked_file.open("rb") as file:
            file.seek(int(self.line_R[row]))
            given = json.loads(file.readline())
        return given if isinstance(given, str) else tuple((role, content) for role, content in given)

    def __len__(self) -> int:
        return len(self.begin_R) - 1

    def __getitem__(self, row: int) -> Spoken:
        spans = self.answer_S2[self.first_R[row] : self.first_R[row + 1]].tolist()
        return Spoken(self.tokens(row).tolist(), [(begin, end) for begin, end in spans])

    def tokens(self, row: int) -> Tensor:
        return self.token_N[self.begin_R[row] : self.begin_R[row + 1]]

    @property
    def length_R(self) -> Tensor:
        """long[R]."""
        return self.begin_R[1:] - self.begin_R[:-1]

    def prompt(self, row: int) -> Tensor:
        """long: the tokens before the last answer, or all of them where there is none."""
        tokens, last = self.tokens(row).long(), int(self.first_R[row + 1])
        return tokens[: int(self.answer_S2[last - 1, 0])] if last > int(self.first_R[row]) else tokens

    def ends(self) -> set[int]:
        """The tokens that answers end with."""
        row_S = torch.arange(len(self)).repeat_interleave(self.first_R[1:] - self.first_R[:-1])
        return set(self.token_N[self.begin_R[row_S] + self.answer_S2[:, 1] - 1].unique().tolist())

    @staticmethod
    def read(folder: Path) -> Rows:
        """Those of a folder. Their tokens stay in its file."""
        places, file = load_file(folder / PLACES), folder / TOKENS
        count = int(places["begin"][-1])
        if file.stat().st_size != 4 * count:
            raise OSError(f"{file} has {file.stat().st_size} bytes instead of {4 * count}")
        tokens = np.memmap(file, np.int32, "c", shape=(count,)) if count else np.zeros(0, np.int32)
        token_N = torch.from_numpy(tokens)
        return Rows(token_N, places["begin"], places["answer"], places["first"], places["line"], folder / ASKED)


@dataclass
class Writer:
    """Rows on their way into a folder."""

    file: BinaryIO
    asked_file: BinaryIO
    lines: array[int] = field(default_factory=lambda: array("q"))
    begins: array[int] = field(default_factory=lambda: array("q", [0]))
    answers: array[int] = field(default_factory=lambda: array("q"))
    firsts: array[int] = field(default_factory=lambda: array("q", [0]))

    def add(self, one: Spoken, asked: Prompt) -> None:
        self.lines.append(self.asked_file.tell())
        self.asked_file.write(json.dumps(asked).encode() + b"\n")
        self.file.write(np.asarray(one.tokens, np.int32).tobytes())
        self.begins.append(self.begins[-1] + len(one.tokens))
        for span in one.answers:
            self.answers.extend(span)
        self.firsts.append(len(self.answers) // 2)

    def finish(self, folder: Path) -> None:
        """Write where everything lies; the tokens are in the file already."""
        self.file.flush()
        self.asked_file.flush()
        save_file(
            {
                "begin": torch.tensor(self.begins),
                "answer": torch.tensor(self.answers).reshape(-1, 2),
                "first": torch.tensor(self.firsts),
                "line": torch.tensor(self.lines),
            },
            folder / PLACES,
        )


@dataclass(frozen=True)
class Answers:
    """Rows as behaviours: what was answered was chosen, and pays."""

    rows: Rows
    row_B: Tensor
    """long[B]: which rows."""
    context_id: Tensor
    """long[B]."""

    def __len__(self) -> int:
        return len(self.row_B)

    @property
    def weight(self) -> Tensor:
        return torch.ones(len(self))

    def __getitem__(self, index: Index) -> Trajectories:
        return behaviours([self.rows[row] for row in self.row_B[index].tolist()], self.context_id[index])


def behaviours(spoken: Sequence[Spoken], context_id: Tensor | None = None) -> Trajectories:
    """Whole behaviours: what was answered was chosen, and pays. Without contexts they answer none of the domain's."""
    count, longest = len(spoken), max(len(one.tokens) for one in spoken)
    token_BT, mask_BT = torch.zeros(count, longest, dtype=torch.long), torch.zeros(count, longest, dtype=torch.bool)
    for tokens, mask, one in zip(token_BT, mask_BT, spoken, strict=True):
        tokens[: len(one.tokens)] = torch.tensor(one.tokens)
        for begin, end in one.answers:
            mask[begin:end] = True
    return Trajectories(
        data={"token": token_BT},
        mask=mask_BT,
        rewarded=mask_BT.clone(),
        context_id=torch.full((count,), -1) if context_id is None else context_id,
        weight=torch.ones(count),
        behaviour_log_prob=torch.zeros(token_BT.shape),
        start_step=torch.zeros(count, dtype=torch.long),
        terminated=torch.ones(count, dtype=torch.bool),
        truncated=torch.zeros(count, dtype=torch.bool),
    )


@dataclass(frozen=True)
class Prompts:
    """What is asked, as contexts: the beginning of each of some rows, up to its last answer."""

    sources: tuple[Rows, ...]
    source_B: Tensor
    """long[B]: which of the sources."""
    row_B: Tensor
    """long[B]: which of its rows."""
    first_id: int = 0

    def __len__(self) -> int:
        return len(self.row_B)

    @property
    def ids(self) -> Tensor:
        return self.first_id + torch.arange(len(self))

    @property
    def data(self) -> dict[str, Tensor]:
        """All of them at once."""
        return self[:].data

    def part(self, begin: int, end: int) -> Prompts:
        """Some of them, still unread."""
        return Prompts(self.sources, self.source_B[begin:end], self.row_B[begin:end], self.first_id + begin)

    def texts(self, index: Index) -> list[Prompt]:
        """What was asked, as it was written."""
        places = zip(self.source_B[index].tolist(), self.row_B[index].tolist(), strict=True)
        return [self.sources[source].asked(row) for source, row in places]

    def __getitem__(self, index: Index) -> Contexts:
        places = zip(self.source_B[index].tolist(), self.row_B[index].tolist(), strict=True)
        prompts = [self.sources[source].prompt(row) for source, row in places]
        token_BP = torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True)
        return Contexts(
            ids=self.ids[index], data={"token": token_BP, "length": torch.tensor([len(one) for one in prompts])}
        )
