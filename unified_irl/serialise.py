"""Configs to JSON and back, with every mistake named; files that are whole or absent.

JSON has no infinity and no NaN, and other programs refuse files that pretend it has. They are written as the words
"inf", "-inf" and "nan", and become numbers again where the config's type asks for a number.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import difflib
import hashlib
import json
import math
import os
import re
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any, TypeVar

from unified_irl.errors import UserError

T = TypeVar("T")

NUMBER_WORDS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}

_EXPECTED = {
    "float_type": "a number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "string_type": "text",
    "none_required": "null",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a table of keys and values",
    "dataclass_type": "a table of settings",
}


def to_json(config: Any) -> dict[str, Any]:
    """A config (a dataclass of dataclasses) as plain JSON data; `from_json` gives it back."""
    from pydantic import TypeAdapter

    # warnings=False: an int where a float or a word may stand is fine, and pydantic would warn about it.
    data = TypeAdapter(type(config)).dump_python(config, mode="json", warnings=False)
    return typing.cast(dict[str, Any], plain(data))


def from_json(type_: type[T], data: Any, where: str) -> T:
    """The config of this type that `data` describes. `where` (a file name, say) opens the error sentence."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    # Inside a list, because a bare dataclass takes no configuration here, while one inside a list inherits it.
    adapter = TypeAdapter(list[type_], config=ConfigDict(extra="forbid"))  # type: ignore[valid-type]
    boxed = [copy.deepcopy(data)]
    while True:
        try:
            # The JSON mode of "strict" takes lists for tuples and text for paths, but no text for numbers.
            return adapter.validate_json(json.dumps(boxed), strict=True)[0]
        except ValidationError as error:
            problems = typing.cast(list[dict[str, Any]], error.errors(include_url=False))
            if not _put_numbers_for_words(boxed, problems):
                raise UserError(f"{where}: {_sentences(boxed, problems, type_)}") from error


def content_hash(obj: Any) -> str:
    """Twelve hex digits that name this content; the order of keys does not count, and 1 equals 1.0."""
    data = to_json(obj) if dataclasses.is_dataclass(obj) and not isinstance(obj, type) else plain(obj)
    return hashlib.sha256(canonical(_whole_floats_as_ints(data)).encode()).hexdigest()[:12]


def path_hash(path: Path) -> str:
    """What a file or a folder holds; 'missing' where there is neither."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if not path.is_dir():
        return "missing"
    digest = hashlib.sha256()
    for part in sorted(part for part in path.rglob("*") if part.is_file()):
        digest.update(f"{part.relative_to(path)}:{path_hash(part)};".encode())
    return digest.hexdigest()


def canonical(data: Any) -> str:
    """The one spelling of this JSON data: sorted keys, no spaces, ASCII."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


def plain(data: Any) -> Any:
    """JSON data of the same content: tuples as lists, paths as text, array scalars as numbers, inf as "inf"."""
    if isinstance(data, dict):
        return {str(key): plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [plain(value) for value in data]
    if isinstance(data, PurePath):
        return str(data)
    if hasattr(data, "item") and not isinstance(data, float):
        data = data.item()
    if isinstance(data, float):
        number = float(data)
        return number if math.isfinite(number) else str(number)
    return data


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file that is seen whole or not at all, even when the machine stops half-way."""
    text = json.dumps(plain(data), indent=2, allow_nan=False) + "\n"
    write_text(path, text)


def write_text(path: Path, text: str) -> None:
    """Replace the file in one step: write beside it, push to disk, rename over it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        if isinstance(error, OSError):
            error.filename = str(path)  # the name that people know
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_tensors(path: Path, tensors: dict[str, Any], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file; what the disk refuses is an OSError, as for any other file."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, path, metadata=metadata)
    except SafetensorError as error:
        if code := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(code[1]), os.strerror(int(code[1]))) from error
        raise


def read_json(path: Path) -> Any:
    """What the JSON file holds, or a sentence about why it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; expected a JSON file there.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise UserError(
            f"{path} is not valid JSON ({place}: {error.msg}). Mend it there, or restore a copy."
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file; expected JSON in UTF-8. Restore a copy.") from error


def _put_numbers_for_words(boxed: list[Any], problems: Sequence[dict[str, Any]]) -> bool:
    """Turn "inf" into infinity where a number was wanted. Only the type knows: "inf" may also be a name."""
    found = False
    for problem in problems:
        if problem["type"] == "float_type" and isinstance(problem["input"], str) and problem["input"] in NUMBER_WORDS:
            *route, last = _path(boxed, problem)
            holder = boxed
            for part in route:
                holder = holder[part]
            holder[last] = NUMBER_WORDS[problem["input"]]
            found = True
    return found


def _path(boxed: list[Any], problem: dict[str, Any]) -> list[Any]:
    """Where in the data the problem is. pydantic also names the branch of a union it tried, which is no key."""
    path: list[Any] = []
    here: Any = boxed
    for part in problem["loc"]:
        in_list = isinstance(here, list) and isinstance(part, int) and part < len(here)
        if in_list or (isinstance(here, dict) and part in here):
            here = here[part]
        elif problem["type"] != "missing" or part != problem["loc"][-1]:
            continue
        path.append(part)
    return path


def _sentences(boxed: list[Any], problems: Sequence[dict[str, Any]], type_: type) -> str:
    by_place: dict[tuple[str, str], list[str]] = {}
    for problem in problems:
        place = _spelled(_path(boxed, problem)[1:])
        opening, expectation = _explained(place, problem, type_)
        expectations = by_place.setdefault((place, opening), [])
        if expectation not in expectations:
            expectations.append(expectation)
    sentences = [opening + " or ".join(expectations) + "." for (_, opening), expectations in by_place.items()]
    more = f" And {len(sentences) - 5} more like these." if len(sentences) > 5 else ""
    return " ".join(sentences[:5]) + more


def _explained(place: str, problem: dict[str, Any], type_: type) -> tuple[str, str]:
    """What is wrong at this place, and what was expected instead (kept apart: a union has several expectations)."""
    kind, given = problem["type"], problem["input"]
    if kind == "unexpected_keyword_argument":
        name = str(problem["loc"][-1])
        near = difflib.get_close_matches(name, set(_field_names(type_)), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "there is no such setting; remove it"
        return f"the key '{place}' is not known: ", hint
    if kind == "missing":
        return f"'{place}' is missing; ", "it has no default, so give it a value"
    if kind == "value_error":
        return f"'{place}': " if place else "", str(problem["ctx"]["error"]).rstrip(".")
    if kind == "literal_error":
        expected = str(problem["ctx"]["expected"])
    else:
        expected = _EXPECTED.get(kind) or problem["msg"].removeprefix("Input should be ")
    return f"'{place or 'the whole'}' is {_shown(given)}, expected ", expected


def _shown(given: Any) -> str:
    text = json.dumps(given)
    return text if len(text) <= 60 else text[:57] + "..."


def _spelled(path: Sequence[Any]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def _field_names(type_: Any) -> Iterator[str]:
    """Every field name of a config and of the configs inside it."""
    if dataclasses.is_dataclass(type_):
        for name, inner in typing.get_type_hints(type_).items():
            yield name
            yield from _field_names(inner)
    for argument in typing.get_args(type_):
        yield from _field_names(argument)


def _whole_floats_as_ints(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _whole_floats_as_ints(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_whole_floats_as_ints(value) for value in data]
    return int(data) if isinstance(data, float) and data.is_integer() else data
