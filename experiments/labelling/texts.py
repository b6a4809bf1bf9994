"""Prompts and completions as queries, and the answers as files that language models learn from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.labelling.book import Answer
from experiments.labelling.folder import Made, Query
from experiments.labelling.material import Comparison, Shown, comparisons
from unified_irl.errors import UserError
from unified_irl.serialise import write_text

if TYPE_CHECKING:
    from experiments.labelling.spelling import Spelling

CANDIDATES = "candidates.safetensors"
"""All pairs of a named task as comparisons that nobody has made yet, with its own tokens."""
COMPARED, SHOWN = "preferences", "demonstrations"


class Texts:
    """Queries of a labelling. Demonstrations of a named task are spelt in its words."""

    is_filmed = False

    def __init__(self, folder: Path, made: Made, spelling: Spelling | None = None) -> None:
        self.folder, self.queries, self.facts, self.spelling = folder, made.queries, made.facts, spelling
        self.words: Sequence[str] = () if spelling is None else spelling.words

    def __len__(self) -> int:
        return len(self.queries)

    def shown(self, pair: int) -> dict[str, Any]:
        query = self.queries[pair]
        shown: dict[str, Any] = {"prompt": _shown(query["prompt"], "")}
        if "first" in query:
            cut = query.get("cut", [False, False])
            sides = zip((query["first"], query["second"]), cut, strict=True)
            shown["sides"] = [_shown(reply, " …" if is_cut else "") for reply, is_cut in sides]
        return shown

    def expect(self, pairs: Iterable[int]) -> None:
        """Texts are there at once."""

    def film(self, pair: int, side: int) -> Path:
        raise UserError("There are no films of texts.")

    def fault(self, text: str) -> str:
        return "" if self.spelling is None else self.spelling.fault(text)

    def export(self, answers: Sequence[Answer]) -> list[str]:
        if self.facts["mode"] == "demonstrate":
            return self._export_written([one for one in answers if one.text])
        return self._export_compared(comparisons(answers))

    def close(self) -> None:
        """Nothing is held."""

    def _export_compared(self, made: list[Comparison]) -> list[str]:
        chosen = [one for one in made if one.label != 0.5]
        ties = len(made) - len(chosen)
        less = f" ({ties} ties left out, which this format cannot hold)" if ties else ""
        told = self._rows(COMPARED, [self._row(one) for one in chosen], less)
        if not (self.folder / CANDIDATES).is_file():
            return told
        from experiments.labelling.spelling import write_compared

        return told + write_compared(self.folder / CANDIDATES, self.folder / f"{COMPARED}.safetensors", made)

    def _row(self, one: Comparison) -> Query:
        query = self.queries[one.pair]
        sides = (query["first"], query["second"])
        chosen, rejected = sides if one.label > 0.5 else sides[::-1]
        return {"prompt": query["prompt"], "chosen": chosen, "rejected": rejected, "rater": one.rater}

    def _export_written(self, written: list[Answer]) -> list[str]:
        rows = []
        for one in written:
            prompt = self.queries[one.pair]["prompt"]
            rows.append({"prompt": prompt, "completion": _completion(prompt, one.text), "rater": one.rater})
        told = self._rows(SHOWN, rows)
        if self.spelling is None:
            return told
        contexts = [self.queries[one.pair]["context"] for one in written]
        return told + self.spelling.write_shown(self.folder / f"{SHOWN}.safetensors", written, contexts)

    def _rows(self, name: str, rows: list[Query], more: str = "") -> list[str]:
        path = self.folder / f"{name}.jsonl"
        if not rows:
            path.unlink(missing_ok=True)
            return []
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        return [f"{len(rows)} {name} in {path}{more}"]


def after(prompt: str, text: str) -> str:
    """A completion as it follows its prompt, with a space in between where there is none."""
    return text if not prompt or prompt[-1].isspace() or text[:1].isspace() else f" {text}"


def _completion(prompt: Any, text: str) -> Any:
    """A text as the answer to a text, a message as the answer to messages."""
    return after(prompt, text) if isinstance(prompt, str) else [{"role": "assistant", "content": text}]


def _shown(said: Any, more: str) -> Shown:
    messages = [{"role": "", "content": said}] if isinstance(said, str) else said
    shown = [{"role": one["role"], "text": one["content"].strip()} for one in messages]
    shown[-1]["text"] += more
    return shown
