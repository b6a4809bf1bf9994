"""Thousands of damaged files of demonstrations: each is read or refused with a sentence, and in little memory."""

from __future__ import annotations

import io
import json
import pickle
import resource
import shutil
import struct
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from numpy.random import Generator
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from control.files.demonstrations import read_demonstrations, write_demonstrations
from envs.robots.episodes import Episode, trajectories
from unified_irl.errors import UserError
from unified_irl.feedback import Demonstrations, Provenance
from unified_irl.feedback_files import save_demonstrations

FORMATS = {"npz": 0.3, "hdf5": 0.3, "own": 0.3, "imitation": 0.06, "minari hdf5": 0.02, "minari arrow": 0.02}
"""Each format with its share of the files: the quick ones get more."""
HUGE = 2**40
Arrays = dict[str, np.ndarray]


def shown(draw: Generator) -> Demonstrations:
    episodes = [
        Episode(
            observations=draw.normal(size=(steps + 1, 3)).astype(np.float32),
            actions=draw.uniform(-1, 1, size=(steps, 2)).astype(np.float32),
            rewards=draw.normal(size=steps).astype(np.float32),
            terminated=steps % 2 == 0,
            truncated=steps % 2 == 1,
        )
        for steps in (4, 1, 5)
    ]
    return Demonstrations(
        trajectories=trajectories(episodes), maker=torch.zeros(3, dtype=torch.long), makers=(Provenance(maker="p"),)
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One sound file or folder per format."""
    import minari
    from gymnasium.spaces import Box

    root = tmp_path_factory.mktemp("whole")
    data = shown(np.random.default_rng(0))
    places = {name: root / name.replace(" ", "_") for name in FORMATS}
    for name in ("npz", "hdf5", "imitation"):
        write_demonstrations(places[name], data, name)
    save_demonstrations(places["own"], data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(root))
        buffers = [
            minari.data_collector.EpisodeBuffer(
                observations=np.zeros((steps + 1, 3), np.float32),
                actions=np.zeros((steps, 2), np.float32),
                rewards=np.ones(steps),
                terminations=np.zeros(steps, bool),
                truncations=np.arange(steps) == steps - 1,
            )
            for steps in (3, 2)
        ]
        for storage in ("hdf5", "arrow"):
            minari.create_dataset_from_buffers(
                f"minari_{storage}-v0", buffers, observation_space=Box(-1, 1, (3,)), action_space=Box(-1, 1, (2,)),
                data_format=storage, author="a", author_email="a", code_permalink="a", algorithm_name="a",
                description="a",
            )  # fmt: skip
            (root / f"minari_{storage}-v0").rename(places[f"minari {storage}"])
    return places


# Damage that knows nothing of the format.


def flip_bytes(data: bytearray, draw: Generator) -> None:
    for place in draw.integers(len(data), size=draw.integers(1, 9)):
        data[place] ^= 1 << draw.integers(8)


def cut_short(data: bytearray, draw: Generator) -> None:
    del data[draw.integers(len(data)) :]


def wrong_magic(data: bytearray, draw: Generator) -> None:
    data[:9] = draw.bytes(9)


def claim_much(data: bytearray, draw: Generator) -> None:
    """Some 4 or 8 bytes become a huge number."""
    place = int(draw.integers(max(1, len(data) - 8)))
    number = [struct.pack("<q", HUGE), b"\xff" * 8, struct.pack("<i", 2**31 - 1), b"\x80\0\0\0"][draw.integers(4)]
    data[place : place + len(number)] = number


def swap_parts(data: bytearray, draw: Generator) -> None:
    one, other, size = draw.integers(len(data), size=3)
    data[one : one + size % 64] = data[other : other + size % 64]


def blank(data: bytearray, draw: Generator) -> None:
    place, size = draw.integers(len(data), size=2)
    data[place : place + size] = bytes(len(data[place : place + size]))


BLIND: tuple[Callable[[bytearray, Generator], None], ...] = (
    flip_bytes, flip_bytes, cut_short, wrong_magic, claim_much, swap_parts, blank,
)  # fmt: skip


def blindly(place: Path, draw: Generator) -> None:
    """Damages one file, or one of the files in a folder."""
    files = sorted(one for one in place.rglob("*") if one.is_file()) if place.is_dir() else [place]
    file = files[draw.integers(len(files))]
    if place.is_dir() and draw.random() < 0.1:
        file.unlink()
        return
    data = bytearray(file.read_bytes())
    if draw.random() < 0.03:
        data.clear()
    else:
        BLIND[draw.integers(len(BLIND))](data, draw)
    file.write_bytes(data)


# Damage to the arrays, written as a sound file.


def damaged_array(array: np.ndarray, draw: Generator) -> np.ndarray:
    kind = draw.integers(9)
    if kind == 0:
        return array[: draw.integers(len(array) + 1)]
    if kind == 1:
        return array.reshape(-1)
    if kind == 2:
        return array[None]
    if kind == 3:
        return array.astype([np.int64, np.float64, np.uint8, np.complex64, np.float16][draw.integers(5)])
    if kind == 4:
        return np.array(array.ravel()[0])
    if kind == 5:
        return np.concatenate([array, array])
    if kind == 6:
        return array[..., :0]
    bad = array.astype(np.float64)
    bad.ravel()[draw.integers(bad.size)] = [np.nan, np.inf, 1e300, -7.0][draw.integers(4)]
    return bad


def damage_arrays(arrays: Arrays, draw: Generator) -> None:
    """Drops, renames or spoils one of the arrays."""
    name = sorted(arrays)[draw.integers(len(arrays))]
    kind = draw.random()
    if kind < 0.2:
        del arrays[name]
    elif kind < 0.3:
        arrays[name.upper()] = arrays.pop(name)
    else:
        arrays[name] = damaged_array(arrays[name], draw)


def spoil_npz(place: Path, draw: Generator) -> None:
    with np.load(place) as file:
        arrays = dict(file)
    if draw.random() < 0.6:
        damage_arrays(arrays, draw)
        with place.open("wb") as out:
            np.savez(out, **arrays)
        return
    name = sorted(arrays)[draw.integers(len(arrays))]
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        for other, array in arrays.items():
            archive.writestr(f"{other}.npy", npy(array) if other != name else hostile_npy(array, draw))


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def hostile_npy(array: np.ndarray, draw: Generator) -> bytes:
    """A pickle, objects, a header without end, or a shape beyond all bounds."""
    kind = draw.integers(5)
    if kind == 0:
        return pickle.dumps({"not": "an array"})
    if kind == 1:
        return npy(np.array([{"an": "object"}] * len(array), dtype=object))
    shape = [(HUGE, 3), (-1, 3), (2**62, 2**62, 8), (10**6, 3)][draw.integers(4)]
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    if kind == 2:
        header = b"(" * 3000
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n" + bytes(64)


def spoil_hdf5(place: Path, draw: Generator) -> None:
    with h5py.File(place, "r") as file:
        arrays = {name: np.asarray(file[name]) for name in file}
    name = sorted(arrays)[draw.integers(len(arrays))]
    if kind := draw.integers(6):
        damage_arrays(arrays, draw)
    with h5py.File(place, "w") as file:
        for other, array in arrays.items():
            if kind or other != name:
                file[other] = array
        if not kind:
            hostile_dataset(file, name, draw)


def hostile_dataset(file: h5py.File, name: str, draw: Generator) -> None:
    kind = draw.integers(7)
    if kind == 0:
        file.create_dataset(name, shape=(HUGE, 3), dtype="f4", chunks=(1024, 3))
    elif kind == 1:
        file.create_dataset(name, shape=(HUGE, 3), dtype="f4", chunks=(1024, 3))[:4] = 1.0
    elif kind == 2:
        file[name] = h5py.SoftLink("/rewards")
    elif kind == 3:
        file[name] = h5py.ExternalLink("/etc/hostname", "/rewards")
    elif kind == 4:
        layout = h5py.VirtualLayout(shape=(10, 3), dtype="f4")
        layout[:] = h5py.VirtualSource("elsewhere.hdf5", "rewards", shape=(10, 3))
        file.create_virtual_dataset(name, layout)
    elif kind == 5:
        file[name] = ["text"] * 10
    else:
        file[name] = h5py.Empty("f4")


def spoil_own(place: Path, draw: Generator) -> None:
    with safe_open(place, framework="pt") as file:
        metadata = dict(file.metadata())
    if draw.random() < 0.2:
        header = json.loads(metadata["unified_irl"])
        values = [None, [], {}, 7, "text", [{"maker": 3}], [{"maker": "a", "more": 1}], [[]]]
        header[sorted(header)[draw.integers(len(header))]] = values[draw.integers(len(values))]
        metadata["unified_irl"] = json.dumps(header)
    arrays = {name: value.numpy() for name, value in load_file(place).items()}
    damage_arrays(arrays, draw)
    tensors = {name: torch.from_numpy(np.array(array)).contiguous() for name, array in arrays.items()}
    save_file(tensors, place, metadata=metadata)


def spoil_imitation(place: Path, draw: Generator) -> None:
    from datasets import Dataset, load_from_disk

    rows = dict(load_from_disk(str(place)).with_format(None).to_dict())
    name = sorted(rows)[draw.integers(len(rows))]
    values: list[object] = [[], [[]], [[1.0], [1.0, 2.0]], 3, "text", None, [[float("nan")] * 2] * 4, [["a"]], [None]]
    kind = draw.random()
    if kind < 0.3:
        del rows[name]
    elif kind < 0.6:
        rows[name] = [values[draw.integers(len(values))]] * len(rows[name])
    else:
        rows[name] = [one[:-1] if isinstance(one, list) else one for one in rows[name]]
    shutil.rmtree(place)
    Dataset.from_dict(rows).save_to_disk(str(place))


def spoil_metadata(place: Path, draw: Generator) -> None:
    path = place / "data" / "metadata.json"
    metadata = json.loads(path.read_text())
    box = {"type": "Box", "dtype": "float32", "shape": [HUGE], "low": 0.0, "high": 1.0}
    values = [None, HUGE, -1, "text", [], json.dumps(box), json.dumps({**box, "type": "Tuple"}), "[" * 5000]
    name = sorted(metadata)[draw.integers(len(metadata))]
    if draw.random() < 0.3:
        del metadata[name]
    else:
        metadata[name] = values[draw.integers(len(values))]
    path.write_text(json.dumps(metadata))


SPOIL = {
    "npz": spoil_npz,
    "hdf5": spoil_hdf5,
    "own": spoil_own,
    "imitation": spoil_imitation,
    "minari hdf5": spoil_metadata,
    "minari arrow": spoil_metadata,
}


def outcome(whole: Path, kind: str, place: Path, seed: int) -> str:
    """Damages a copy and reads it. Anything but success and a UserError goes through to the test."""
    draw = np.random.default_rng(seed)
    if whole.is_dir():
        shutil.copytree(whole, place)
    else:
        shutil.copyfile(whole, place)
    (blindly if draw.random() < 0.6 else SPOIL[kind])(place, draw)
    try:
        read_demonstrations(place, spaces=(3, 2, -1.0, 1.0))
        return "read"
    except UserError as error:
        sentence = str(error)
    finally:
        shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    assert str(place) in sentence, f"seed {seed}, {kind}: the sentence names no file: {sentence}"
    assert "\n" not in sentence, f"seed {seed}, {kind}: more than a line: {sentence}"
    return "refused"


def survive(count: int, whole: dict[str, Path], folder: Path) -> None:
    from datasets import disable_progress_bars

    disable_progress_bars()
    kinds = np.random.default_rng(1).choice(list(FORMATS), p=list(FORMATS.values()), size=count)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = Counter(
        (str(kind), outcome(whole[kind], kind, folder / f"{seed}", seed)) for seed, kind in enumerate(kinds)
    )
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    for kind in FORMATS:
        # Some damage leaves a file readable (a flipped bit in a number); most does not.
        assert outcomes[kind, "refused"] > outcomes[kind, "read"]
    assert grown < 600 * 1024, f"reading tiny files took {grown / 1024:.0f} MiB"


def test_sound_files_are_read(whole: dict[str, Path]):
    for kind, place in whole.items():
        assert len(read_demonstrations(place, spaces=(3, 2, -1.0, 1.0))) == (2 if kind.startswith("minari") else 3)


def test_five_hundred_damaged_files_are_read_or_refused(whole: dict[str, Path], tmp_path: Path):
    survive(500, whole, tmp_path)


@pytest.mark.slow
def test_ten_thousand_damaged_files_are_read_or_refused(whole: dict[str, Path], tmp_path: Path):
    survive(10_000, whole, tmp_path)
