"""What the word after `label` names, and the queries that are made of it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from control.config import ControlConfig
from experiments.labelling import folder
from experiments.labelling.config import SHOWN, LabelFlags, TaskLabelFlags
from experiments.labelling.folder import Made
from experiments.labelling.material import Material
from experiments.tasks import task
from experiments.train import stored_config
from llm.config import LanguageConfig
from unified_irl.errors import UserError
from unified_irl.serialise import plain, to_json

if TYPE_CHECKING:
    from experiments.labelling.spelling import Spelling

ROWS = (".jsonl", ".jsonl.gz", ".json", ".parquet")


def kind_of(source: str) -> str:
    """'run', 'rows', 'episodes' or 'task'."""
    path = Path(source)
    if (path / "config.json").is_file():
        return "run"
    if source.startswith("minari:"):
        return "episodes"
    if not path.exists():
        return "task"
    if path.is_file():
        return "rows" if path.name.endswith(ROWS) else "episodes"
    return "rows" if any(one.name.endswith(ROWS) for one in path.iterdir()) else "episodes"


def place_of(source: str, flags: LabelFlags) -> Path:
    """The folder of this labelling."""
    path = Path(source)
    name = path.resolve().name if path.exists() else source.replace(":", "-").replace("/", "-")
    name = name.partition(".")[0] or name if path.is_file() else name
    return Path(flags.out) if flags.out else Path("labels") / (name if flags.mode == "compare" else f"{name}-shown")


def opened(source: str, flags: LabelFlags, place: Path) -> Material:
    """The queries of a labelling, made now if they were not before."""
    makers = {"run": _of_run, "rows": _of_rows, "episodes": _of_episodes, "task": _of_task}
    folder.prepared(place, source, _settings(flags), partial(makers[kind_of(source)], source, flags))
    made = folder.read(place)
    if made.kind == "films":
        from experiments.labelling.films import Films

        return Films(place, made)
    from experiments.labelling.texts import Texts

    return Texts(place, made, _spelling(source, flags))


def _settings(flags: LabelFlags) -> dict[str, Any]:
    shown = {name: getattr(flags, name) for name in SHOWN if hasattr(flags, name)}
    return {name: to_json(value) if name == "task" else plain(value) for name, value in shown.items()}


def _of_task(source: str, flags: LabelFlags, place: Path) -> Made:
    assert isinstance(flags, TaskLabelFlags)
    if isinstance(flags.task, ControlConfig):
        from experiments.labelling import film_queries

        return film_queries.of_task(_domain(source, flags), flags, place)
    if isinstance(flags.task, LanguageConfig):
        from experiments.labelling import text_queries

        return text_queries.of_task(_domain(source, flags), flags, place)
    raise UserError(f"There is nothing to see or to read in {source}; expected a task of robots or of language.")


def _of_run(source: str, flags: LabelFlags, place: Path) -> Made:
    _, config = stored_config(Path(source))
    if isinstance(config.task, ControlConfig):
        from experiments.labelling import film_queries

        return film_queries.of_run(Path(source), flags, place)
    from experiments.labelling import text_queries

    return text_queries.of_run(Path(source), flags, place)


def _of_rows(source: str, flags: LabelFlags, _: Path) -> Made:
    from experiments.labelling import row_queries

    return row_queries.of_file(source, flags)


def _of_episodes(source: str, flags: LabelFlags, place: Path) -> Made:
    from experiments.labelling import film_queries

    return film_queries.of_file(source, flags, place)


def _domain(source: str, flags: LabelFlags) -> Any:
    assert isinstance(flags, TaskLabelFlags)
    return task(source).build(flags.task, flags.seed)


def _spelling(source: str, flags: LabelFlags) -> Spelling | None:
    """That of the named task which demonstrations are written for; None where texts are kept as they are."""
    if flags.mode != "demonstrate" or (kind := kind_of(source)) not in ("task", "run"):
        return None
    from experiments.labelling.spelling import Spelling
    from llm.domain import LanguageDomain

    if kind == "task":
        domain = _domain(source, flags)
    else:
        from experiments.language_runs import load_language_run

        domain = load_language_run(Path(source), flags.which).domain
    return Spelling(domain) if isinstance(domain, LanguageDomain) else None
