"""References that remember what they said: of data that stay the same, log-probabilities are computed once.

Rows are known by their content. What the base model says of a task's demonstrations and comparisons is also kept on
disk, named by model and data, so that the next run begins with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from llm.roles import Role
from llm.speech import Manner, Speech, lengths
from unified_irl import parallel
from unified_irl.trajectories import Trajectories

PART = 4096
"""Rows that are read at a time."""
REMEMBERED = 50_000
"""Rows after which it forgets all and begins anew."""


class Remembering(Speech):
    """A frozen role, with a memory of rows."""

    def __init__(self, role: Role, manner: Manner) -> None:
        super().__init__(role, manner)
        self.known: dict[bytes, Tensor] = {}

    def log_prob(self, behaviours: Trajectories) -> Tensor:
        keys = row_keys(behaviours)
        row_of = {key: row for row, key in enumerate(keys)}
        missing = [key for key in row_of if key not in self.known]
        if self.role.wanted(bool(missing)):
            if len(self.known) + len(missing) > REMEMBERED:
                self.known.clear()
                missing = list(row_of)
            index = torch.tensor([row_of[key] for key in missing], dtype=torch.long, device=behaviours.mask.device)
            some = behaviours[index]
            with parallel.alone():  # what is missing differs between processes
                said = self._still_log_prob(some).cpu()
            for key, part, mask in zip(missing, said, some.mask.cpu(), strict=True):
                self.known[key] = part[mask]
        mask_BT = behaviours.mask
        flat = torch.cat([self.known[key] for key in keys]).to(self.role.model.device)
        return torch.zeros(mask_BT.shape, device=flat.device).masked_scatter(mask_BT.to(flat.device), flat)

    def fresh(self, behaviours: Trajectories) -> Tensor:
        """The same of what will hardly be asked again: computed, and not remembered."""
        return self._still_log_prob(behaviours)

    def load_state_dict(self, state: dict[str, object]) -> None:
        super().load_state_dict(state)
        self.known.clear()

    def remember(self, data: list[Trajectories], folder: Path, model: str) -> None:
        """Know these data, from disk where they were met before."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file, save_file

        keys = [key for one in data for some in in_parts(one) for key in row_keys(some)]
        name = hashlib.sha256(b"".join([model.encode(), *keys])).hexdigest()[:32]
        file = folder / f"{name}.safetensors"
        with contextlib.suppress(OSError, SafetensorError, KeyError):  # not met before, or damaged: computed anew
            stored = load_file(file)
            lengths_, flat = stored["lengths"], stored["log_prob"]
            if len(lengths_) == len(keys) and int(lengths_.sum()) == len(flat):
                self.known |= dict(zip(keys, flat.split(lengths_.tolist()), strict=True))
        if all(parallel.gather(all(key in self.known for key in keys))):
            return  # where one process has to compute, all do
        rows = [
            said[mask]
            for one in data
            for some in in_parts(one)
            for said, mask in zip(self._still_log_prob(some).cpu(), some.mask, strict=True)
        ]
        self.known |= dict(zip(keys, rows, strict=True))
        partial = file.with_suffix(f".{os.getpid()}.partial")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            save_file({"lengths": torch.tensor([len(row) for row in rows]), "log_prob": torch.cat(rows)}, partial)
            partial.replace(file)
        except (OSError, SafetensorError):  # what cannot be kept is computed again the next time
            with contextlib.suppress(OSError):
                partial.unlink()


def in_parts(data: Trajectories) -> Iterator[Trajectories]:
    """Data that may be too many to be held at once."""
    for begin in range(0, len(data), PART):
        yield data[begin : begin + PART]


def row_keys(behaviours: Trajectories) -> list[bytes]:
    """The content of every row: its tokens, and which of them were chosen."""
    token, mask, length = (one.cpu() for one in (behaviours.data["token"], behaviours.mask, lengths(behaviours)))
    packed = (token * 2 + mask).numpy()
    return [
        hashlib.blake2b(row[:end].tobytes(), digest_size=16).digest()
        for row, end in zip(packed, length.tolist(), strict=True)
    ]
