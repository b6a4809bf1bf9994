"""Prompts and completions as queries, and the answers as files that language models learn from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from experiments.labelling.book import Answer
from experiments.labelling.folder import Made, Query
from experiments.labelling.material import Comparison, Shown, comparisons
from llm.data.records import Prompt, Reply, as_messages
from llm.domain import LanguageDomain
from unified_irl.errors import UserError
from unified_irl.feedback import Demonstrations, Provenance
from unified_irl.feedback_files import load_preferences, save_demonstrations, save_preferences
from unified_irl.serialise import write_text

CANDIDATES = "candidates.safetensors"
"""All pairs of a named task as comparisons that nobody has made yet, with its own tokens."""
COMPARED, SHOWN = "preferences", "demonstrations"
UNKNOWN_WORDS = 3
"""How many are named to whoever wrote them."""


class Texts:
    """Queries of a labelling. Where demonstrations of a named task are written, `domain` spells them."""

    is_filmed = False

    def __init__(self, folder: Path, made: Made, domain: LanguageDomain | None = None) -> None:
        self.folder, self.queries, self.facts, self.domain = folder, made.queries, made.facts, domain
        self.words: Sequence[str] = () if domain is None else domain.task.words

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
        if self.domain is None:
            return ""
        task, said = self.domain.task, text.split()
        if len(said) > task.max_words:
            return f"That is {len(said)} words; {task.name} has room for {task.max_words}."
        if unknown := [word for word in said if word not in task.words]:
            named = ", ".join(f"'{word}'" for word in unknown[:UNKNOWN_WORDS])
            return f"{task.name} has no word {named}; use the words below."
        return ""

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
        path = self.folder / f"{COMPARED}.safetensors"
        if not (self.folder / CANDIDATES).is_file():
            return told
        if not made:
            path.unlink(missing_ok=True)
            return told
        candidates = load_preferences(self.folder / CANDIDATES)
        raters = tuple(dict.fromkeys(one.rater for one in made))
        rows = candidates[torch.tensor([one.pair for one in made])]
        save_preferences(
            path,
            replace(
                rows,
                label=torch.tensor([one.label for one in made]),
                maker=torch.tensor([raters.index(one.rater) for one in made]),
                makers=tuple(replace(candidates.makers[0], labeller=rater, source="label") for rater in raters),
            ),
        )
        return [*told, f"{len(made)} comparisons, ties included, in {path}"]

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
        if self.domain is None or not written:
            return told
        path, raters = self.folder / f"{SHOWN}.safetensors", tuple(dict.fromkeys(one.rater for one in written))
        prompts = torch.tensor([self.queries[one.pair]["context"] for one in written])
        said = [" ".join(one.text.split()) for one in written]
        shown = Demonstrations(
            trajectories=self.domain.codec.trajectories(self.domain.contexts[prompts], said, [True] * len(said)),
            maker=torch.tensor([raters.index(one.rater) for one in written]),
            makers=tuple(Provenance(maker=rater, source="label") for rater in raters),
        )
        save_demonstrations(path, shown)
        return [*told, f"{len(written)} demonstrations in {path}"]

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


def as_json(said: Prompt | Reply) -> Any:
    """As files of rows hold it."""
    return said if isinstance(said, str) else as_messages(said)


def _shown(said: Any, more: str) -> Shown:
    messages = [{"role": "", "content": said}] if isinstance(said, str) else said
    shown = [{"role": one["role"], "text": one["content"].strip()} for one in messages]
    shown[-1]["text"] += more
    return shown
