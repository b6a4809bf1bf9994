"""Rows of a file as queries."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from experiments.labelling.config import LabelFlags
from experiments.labelling.folder import Made, Query
from llm.data import files, records
from unified_irl.errors import UserError

Row = Mapping[str, Any]


def of_file(source: str, flags: LabelFlags) -> Made:
    """Rows chosen by the seed. Which answer the file calls better is known to nobody who compares."""
    wanted = _prompt_of if flags.mode == "demonstrate" else _pair_of
    unfit: list[str] = []
    kept = _chosen(_fitting(source, flags.split, wanted, unfit), flags.count, random.Random(flags.seed))
    if not kept:
        why = f": its first row {unfit[0]}" if unfit else ""
        raise UserError(f"{source} holds no row that could be shown{why}.")
    if unfit:
        print(f"{len(unfit)} rows of {source} cannot be shown; the first of them {unfit[0]}.", file=sys.stderr)
    return Made(kind="texts", facts={"mode": flags.mode}, queries=kept)


def _fitting(source: str, split: str, read: Callable[[Row], Query], unfit: list[str]) -> Iterator[Query]:
    for _, row in files.rows(source, split):
        try:
            yield read(row)
        except records.Unfit as why:
            unfit.append(str(why))


def _chosen(queries: Iterator[Query], count: int, chance: random.Random) -> list[Query]:
    """So many of them, each as likely as any other, without holding all."""
    kept: list[Query] = []
    for number, one in enumerate(queries):
        if number < count:
            kept.append(one)
        elif (place := int(chance.random() * (number + 1))) < count:
            kept[place] = one
    return kept


def _prompt_of(row: Row) -> Query:
    return {"prompt": records.as_json(records.asked(row))}


def _pair_of(row: Row) -> Query:
    pair = records.compared(row)
    return {
        "prompt": records.as_json(pair.prompt),
        "first": records.as_json(pair.chosen),
        "second": records.as_json(pair.rejected),
    }
