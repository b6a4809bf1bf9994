"""Checkpoints: whole or absent, verified before they are trusted, and never pickled.

A checkpoint is a folder `round-00000123` with three files: `state.safetensors` (every tensor and array), `state.json`
(the tree they hang in, and everything else) and `manifest.json` (size and SHA-256 of the other two, and of itself).
It is written under a hidden name and renamed once it is safely on disk, so a killed writer leaves nothing that looks
like a checkpoint. One process writes to a directory at a time; the lock of the run directory sees to that.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any, TypeAlias

from unified_irl.errors import UserError
from unified_irl.serialise import canonical, write_json, write_tensors
from unified_irl.state_codec import StateEncoder, decode_state

# Nested dicts, lists and tuples of tensors, numpy arrays, numbers, text and None. Spelled out as a recursive union it
# would demand a cast at every use.
State: TypeAlias = Any

FORMAT = 1
TENSORS, TREE, MANIFEST, BEST = "state.safetensors", "state.json", "manifest.json", "best.json"
_NAME = re.compile(r"(\.replaced-)?round-(\d{8,})")
_END = "}\n"  # how a whole manifest ends, and no part of one


def save(directory: Path, state: State, counter: int, *, keep: int = 3, is_best: bool = False) -> Path:
    """Write the checkpoint of this round, then drop old ones: the last `keep` stay, and the best one.

    The best is the last one saved with `is_best`. A second save of a round replaces the first and stays best if it was.
    """
    if keep < 1 or counter < 0:
        raise UserError(f"keep={keep}, counter={counter}: expected to keep at least 1 and to count from 0.")
    final = directory / f"round-{counter:08d}"
    temporary = directory / f".writing-{final.name}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _tidy(directory)
        _refuse_the_past(directory, counter)
        _write(temporary, state, {"best": is_best or final == best(directory), "counter": counter, "format": FORMAT})
        _put_in_place(temporary, final)
        _point_to_best(directory)
        _prune(directory, keep)
    except OSError as error:
        raise UserError(_failed(directory, counter, error)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def load(path: Path) -> State:
    """The state saved in this checkpoint folder, on the CPU. Its checksums are verified first."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    _verify(path)
    try:
        return decode_state(json.loads((path / TREE).read_text(encoding="ascii")), load_file(path / TENSORS))
    except (SafetensorError, ValueError, LookupError, TypeError, AttributeError) as error:
        # The checksums fit, so somebody made the manifest to match.
        raise UserError(f"{path} does not hold a saved state ({error}). {_mend(path)}") from error


def latest(directory: Path) -> Path | None:
    """The newest checkpoint, verified; None where there is none. A damaged one is an error that says how to go on."""
    folders = _folders(directory)
    if not folders:
        return None
    newest = folders[max(folders)]
    _verify(newest)
    return newest


def best(directory: Path) -> Path | None:
    """The newest checkpoint whose manifest calls it best; `best.json` names it too, should that manifest break."""
    named = None
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        named = json.loads((directory / BEST).read_text())["folder"]
    for _, path in sorted(_folders(directory).items(), reverse=True):
        try:
            is_best = json.loads((path / MANIFEST).read_text())["best"]
        except (OSError, ValueError, LookupError, TypeError):
            is_best = path.name == named
        if is_best is True:
            return path
    return None


def counter_of(path: Path) -> int:
    """The round a checkpoint folder belongs to."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise UserError(f"{path} is not named like a checkpoint; expected a folder such as round-00000120.")
    return int(match[2])


def _folders(directory: Path) -> dict[int, Path]:
    """Every checkpoint by its counter, also one set aside by a writer that was killed before it put the new one."""
    found: dict[int, Path] = {}
    if directory.is_dir():
        for path in sorted(directory.iterdir()):  # ".replaced-..." sorts before "round-...", which then wins
            if _NAME.fullmatch(path.name) and path.is_dir():
                found[counter_of(path)] = path
    return found


def _tidy(directory: Path) -> None:
    """Clear up after a writer that was killed."""
    for path in [*directory.glob(".writing-*"), *directory.glob(".removed-*")]:
        shutil.rmtree(path)
    for path in directory.glob(".*.tmp"):
        path.unlink()
    for path in directory.glob(".replaced-round-*"):
        final = path.with_name(path.name.removeprefix(".replaced-"))
        if final.exists():
            shutil.rmtree(path)
        else:
            path.rename(final)


def _refuse_the_past(directory: Path, counter: int) -> None:
    newest = max(_folders(directory), default=counter)
    if newest > counter:
        raise UserError(
            f"{directory} already holds a checkpoint of round {newest}, later than round {counter}, which was to be "
            "saved. Resume from the newest one, delete the later ones, or choose another directory."
        )


def _put_in_place(temporary: Path, final: Path) -> None:
    aside = final.with_name(f".replaced-{final.name}")
    if final.exists():
        final.rename(aside)
    temporary.rename(final)
    _sync(final.parent)
    if aside.exists():
        shutil.rmtree(aside)


def _point_to_best(directory: Path) -> None:
    path = best(directory)
    if path is not None:
        write_json(directory / BEST, {"counter": counter_of(path), "folder": path.name})


def _prune(directory: Path, keep: int) -> None:
    folders = _folders(directory)
    spared = {*sorted(folders)[-keep:], *(n for n, path in folders.items() if path == best(directory))}
    for counter in folders.keys() - spared:
        # Renamed first, so that a folder half deleted does not look like a damaged checkpoint.
        shutil.rmtree(folders[counter].rename(directory / f".removed-{folders[counter].name}"))


def _write(folder: Path, state: State, manifest: dict[str, Any]) -> None:
    encoder = StateEncoder()
    tree = json.dumps(encoder.encode(state, "state"), allow_nan=False, separators=(",", ":"))
    folder.mkdir()
    write_tensors(folder / TENSORS, encoder.tensors)
    (folder / TREE).write_text(tree, encoding="ascii")
    manifest["files"] = {name: _fingerprint(folder / name) for name in (TENSORS, TREE)}
    (folder / MANIFEST).write_text(_sealed(manifest), encoding="ascii")
    for path in [*folder.iterdir(), folder]:
        _sync(path)


def _sealed(manifest: dict[str, Any]) -> str:
    """The manifest's text, with the checksum of all the rest of it inside."""
    return canonical({**manifest, "sha256": hashlib.sha256(canonical(manifest).encode()).hexdigest()}) + "\n"


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot sync a directory
            raise
    finally:
        os.close(descriptor)


def _failed(directory: Path, counter: int, error: OSError) -> str:
    remedies = {
        errno.ENOSPC: "Free some space",
        errno.EDQUOT: "Free some of your quota",
        errno.EFBIG: "Raise the limit on file sizes (ulimit -f)",
        errno.EROFS: "Make the directory writable",
        errno.EACCES: "Make the directory writable",
        errno.EPERM: "Make the directory writable",
    }
    intact = next((path for _, path in sorted(_folders(directory).items(), reverse=True) if not _problem(path)), None)
    kept = f"The checkpoint {intact.name} is intact" if intact else "There is no other checkpoint"
    return (
        f"The checkpoint of round {counter} could not be written to {directory}: {error.strerror or error}. {kept}. "
        f"{remedies.get(error.errno or 0, 'Mend that')}, then resume the run."
    )


def _verify(path: Path) -> None:
    if not path.is_dir():
        raise UserError(f"There is no checkpoint {path}; expected a folder with {TENSORS}, {TREE} and {MANIFEST}.")
    if problem := _problem(path):
        raise UserError(f"The checkpoint {path.name} is damaged: {problem}. {_mend(path)}")


def _mend(path: Path) -> str:
    if not _NAME.fullmatch(path.name):
        return "Restore it from a copy."
    earlier = [other for n, other in sorted(_folders(path.parent).items()) if n < counter_of(path)]
    intact = next((other for other in reversed(earlier) if not _problem(other)), None)
    goes_on = f"goes on from {intact.name}" if intact else "starts from the beginning, as no earlier one is intact"
    return f"Delete the folder {path}; the run, resumed, then {goes_on}."


def _problem(path: Path) -> str | None:
    """What is wrong with a checkpoint folder, or None if it is as it was written."""
    manifest = path / MANIFEST
    try:
        text = manifest.read_text(encoding="ascii")
        content = json.loads(text)
        is_sealed = text == _sealed({key: value for key, value in content.items() if key != "sha256"})
    except FileNotFoundError:
        return f"{manifest} is missing"
    except OSError as error:
        return f"{manifest} cannot be read ({error.strerror})"
    except UnicodeDecodeError:
        return f"{manifest} is altered: it is not a text file"
    except (ValueError, AttributeError):
        is_sealed = False
    if not is_sealed:
        how = "altered: its checksum differs" if text.endswith(_END) else f"truncated after {len(text)} bytes"
        return f"{manifest} is {how}"
    if content.get("format") != FORMAT:
        return f"it has format {content.get('format')}, and this version of unified-irl reads format {FORMAT}"
    if _NAME.fullmatch(path.name) and content["counter"] != counter_of(path):
        return f"the folder was renamed: it holds round {content['counter']}"
    found = (_problem_of_file(path / name, content["files"][name]) for name in (TENSORS, TREE))
    return next((problem for problem in found if problem), None)


def _problem_of_file(path: Path, expected: dict[str, Any]) -> str | None:
    try:
        actual = _fingerprint(path)
        if actual == expected:
            return None
        with path.open("rb") as file:
            head = file.read(4)
    except FileNotFoundError:
        return f"{path} is missing"
    except OSError as error:
        return f"{path} cannot be read ({error.strerror})"
    if head.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")):
        return f"{path} was replaced by a pickle, which is never loaded here, because loading one can run any program"
    if actual["bytes"] < expected["bytes"]:
        return f"{path} is truncated: {actual['bytes']} bytes, expected {expected['bytes']}"
    if actual["bytes"] > expected["bytes"]:
        return f"{path} is altered: {actual['bytes']} bytes, expected {expected['bytes']}"
    return f"{path} is altered: its checksum differs"
