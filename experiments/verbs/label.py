"""label TASK|RUN|FILE [flags]: a page on which a person compares, or demonstrates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from experiments import command
from experiments.labelling.config import LabelFlags, TaskLabelFlags
from experiments.labelling.sources import kind_of, opened, place_of

if TYPE_CHECKING:
    from experiments.labelling.book import Book
    from experiments.labelling.desk import Desk
    from experiments.labelling.material import Material


def main(arguments: list[str]) -> None:
    (source,), rest = command.split_words(arguments, ("source",), "label")
    flags = _flags(source, rest)
    from experiments.labelling.book import Book
    from experiments.labelling.desk import seated
    from experiments.labelling.folder import ANSWERS
    from unified_irl.rundir import DirectoryLock

    place = place_of(source, flags)
    material = opened(source, flags, place)
    lock = DirectoryLock(place)
    try:
        book = Book(place / ANSWERS)
        if book.was_torn:
            print("The last answer had not been written to its end when this stopped; it is asked for again.")
        if not flags.export:
            _serve(seated(book, material, source, flags), flags)
        _tell(book, material, place)
        book.close()
    finally:
        lock.release()
        material.close()


def _flags(source: str, arguments: list[str]) -> LabelFlags:
    """A task's settings can be changed; what a run or a file shows is settled."""
    prog = f"label {source}"
    if kind_of(source) != "task":
        return command.flags(LabelFlags, arguments, prog)
    from experiments.tasks import task

    chosen = task(source)
    flags: LabelFlags = command.flags(
        TaskLabelFlags[chosen.config],  # type: ignore[name-defined]
        chosen.spelt_out(arguments),
        prog,
        TaskLabelFlags(task=chosen.settings()),
    )
    return flags


def _serve(desk: Desk, flags: LabelFlags) -> None:
    """Until Ctrl-C."""
    from experiments.labelling.server import LabelServer

    with LabelServer(desk, flags.host, flags.port) as server:
        print(f"label: {server.address}\nOpen it in a browser. Ctrl-C ends; the same command goes on.", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            desk.stop()
            print()


def _tell(book: Book, material: Material, place: Path) -> None:
    """Write the files, and say where everything is."""
    from experiments.labelling.agreement import sentences

    answers = book.standing
    for sentence in [*material.export(answers), *sentences(answers)]:
        print(sentence)
    print(
        f"{len(answers)} answers in {book.path}" if answers else f"Nothing is answered yet; the queries are in {place}."
    )
