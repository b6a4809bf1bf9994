"""Rows of JSONL, JSON and parquet files, of folders that `datasets` saved, and of datasets on the hub.

Rows are told apart by their number in the source, from 1 on; in JSONL that is the line.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

from unified_irl.errors import UserError

MOST_BYTES = 16 * 2**20
"""Bytes of a line: no text for a language model is that long, and reading one without an end would fill the memory."""
KINDS = (".jsonl", ".jsonl.gz", ".json", ".parquet")
Row = tuple[int, Mapping[str, Any]]


def rows(source: str, split: str = "train", *, allow_download: bool = False, stream: bool = False) -> Iterator[Row]:
    """Every row of a source, one after the other. The split matters where a source has several; rows of the hub may be
    taken as they arrive, and nothing of them kept."""
    path = Path(source)
    if path.is_file():
        return _of_file(path)
    if path.is_dir():
        return _of_folder(path, split)
    if source.startswith((".", "~", "/")) or source.count("/") != 1 or _kind(path):
        raise UserError(
            f"There is no file or folder {source}; expected one of {', '.join(KINDS)}, a folder that `datasets` saved, "
            "or the name of a dataset on the hub (owner/name)."
        )
    if stream and not allow_download:
        raise UserError(f"The rows of {source} can arrive from the hub only if data.allow_download is set; set it too.")
    return _arriving(source, split) if stream else _of_hub(source, split, allow_download)


def _kind(path: Path) -> str:
    return next((kind for kind in KINDS if path.name.endswith(kind)), "")


def _of_file(path: Path) -> Iterator[Row]:
    kind = _kind(path)
    if not kind:
        raise UserError(f"{path} is none of {', '.join(KINDS)}; save its rows as one of these.")
    try:
        with path.open("rb") as file:
            is_empty = not file.read(1)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {_brief(error)}. Mend that, and try again.") from error
    if is_empty:
        raise UserError(f"{path} is empty; expected rows.")
    if kind == ".parquet":
        return _of_parquet(path)
    if kind == ".json":
        return _of_list(path)
    return _of_lines(path)


def _of_lines(path: Path) -> Iterator[Row]:
    """One JSON table per line; blank lines are skipped."""
    with cast(IO[bytes], gzip.open(path) if path.suffix == ".gz" else path.open("rb")) as file:
        number = 0
        while line := _line(file, path, number):
            number += 1
            if len(line) > MOST_BYTES:
                raise UserError(
                    f"{path}, row {number}, is a line of more than {MOST_BYTES // 2**20} MB; expected one row per "
                    "line. Were its line ends lost?"
                )
            if line.strip():
                yield number, _row_of(line, path, number)


def _line(file: IO[bytes], path: Path, number: int) -> bytes:
    try:
        return file.readline(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read after row {number}: {_brief(error)}. Restore a whole copy.") from error


def _row_of(line: bytes, path: Path, number: int) -> Mapping[str, Any]:
    where = f"{path}, row {number},"
    try:
        row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is no UTF-8 (byte {error.start + 1} of the line); save the file as UTF-8.") from error
    except (ValueError, RecursionError) as error:
        why = f"is no JSON ({_brief(error)})" if line.endswith(b"\n") else "ends in the middle; was the file cut off?"
        raise UserError(f"{where} {why}. Restore a whole copy, or remove the row.") from error
    return _table(row, where)


def _table(row: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(row, Mapping):
        raise UserError(f"{where} is {type(row).__name__}, not a table of columns; expected a table for every row.")
    return row


def _of_list(path: Path) -> Iterator[Row]:
    """A JSON file that holds one list of tables."""
    try:
        found = json.loads(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no UTF-8 (byte {error.start + 1}); save it as UTF-8.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON ({_brief(error)}); one table per line belongs in a .jsonl file.") from error
    if not isinstance(found, list) or not found:
        raise UserError(
            f"{path} holds no list of rows; expected [{{…}}, {{…}}, …], or one table per line in a .jsonl file."
        )
    for number, row in enumerate(found, 1):
        yield number, _table(row, f"{path}, row {number},")


def _of_parquet(path: Path) -> Iterator[Row]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (ArrowException, OSError, ValueError) as error:
        where = f"after row {number}" if number else "as parquet"
        raise UserError(f"{path} cannot be read {where}: {_brief(error)}. Restore a whole copy.") from error
    if not number:
        raise UserError(f"{path} holds no row; expected at least one.")


def _of_folder(path: Path, split: str) -> Iterator[Row]:
    """A folder of `save_to_disk`, or one that holds files of rows."""
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return _saved(path, split)
    files = sorted(one for one in path.iterdir() if _kind(one) and one.is_file())
    of_split = [one for one in files if split in one.name] or files
    if not of_split:
        raise UserError(f"{path} holds no saved dataset and none of {', '.join(KINDS)}.")
    return _numbered(row for one in of_split for _, row in _of_file(one))


def _saved(path: Path, split: str) -> Iterator[Row]:
    from datasets import DatasetDict, load_from_disk

    try:
        found = load_from_disk(str(path))
    except Exception as error:  # damaged folders fail in many ways
        raise UserError(f"{path} cannot be read as a saved dataset: {_brief(error)}. Restore a whole copy.") from error
    if isinstance(found, DatasetDict):
        if split not in found:
            raise UserError(f"{path} has no split '{split}'; it has {', '.join(found)}.")
        found = found[split]
    return _numbered(iter(found))


def _of_hub(name: str, split: str, allow_download: bool) -> Iterator[Row]:
    from datasets import DownloadConfig, load_dataset

    try:
        found = load_dataset(name, split=split, download_config=DownloadConfig(local_files_only=not allow_download))
    except Exception as error:  # whatever the hub and its cache may raise
        if allow_download:
            raise UserError(f"The dataset {name} cannot be loaded: {_brief(error)}") from error
        raise UserError(
            f"There is no dataset {name} on this machine, neither as a file or folder nor among those that were "
            f"downloaded ({_brief(error)}); set data.allow_download to ask the hub for it."
        ) from error
    return _numbered(iter(found))


def _arriving(name: str, split: str) -> Iterator[Row]:
    from datasets import load_dataset

    number = 0
    try:
        for row in load_dataset(name, split=split, streaming=True):
            number += 1
            yield number, row
    except Exception as error:  # whatever the hub and the way to it may raise
        raise UserError(
            f"The dataset {name} broke off after row {number}: {_brief(error)}. Try again, or leave data.stream out to "
            "download it whole."
        ) from error


def _numbered(found: Iterator[Any]) -> Iterator[Row]:
    return enumerate(found, 1)


def _brief(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]} …"
