"""What goes into a checkpoint comes out; what was damaged, killed or filled to the brim is told apart and survived."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unified_irl import checkpoint
from unified_irl.errors import UserError

FILES = ("state.safetensors", "state.json", "manifest.json")


def same(a: Any, b: Any) -> bool:
    """Equal in type, shape and bits; NaN equals NaN, and -0.0 differs from 0.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        same_bits = torch.equal(*(x.contiguous().reshape(-1).view(torch.uint8) for x in (a, b))) if a.numel() else True
        return a.dtype == b.dtype and a.shape == b.shape and same_bits
    if isinstance(a, np.ndarray | np.generic):
        return bool(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(i, j) and same(a[i], b[j]) for i, j in zip(a, b, strict=True))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    return bool(a == b)


def round_trip(directory: Path, state: Any) -> Any:
    return checkpoint.load(checkpoint.save(directory, state, 1))


def reseal(folder: Path) -> None:
    """Do what a forger would do: make the manifest fit the files."""
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["sha256"]
    for name in manifest["files"]:
        data = (folder / name).read_bytes()
        manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_text(checkpoint._sealed(manifest))


@pytest.mark.parametrize(
    "state",
    [
        torch.tensor(3.5),
        torch.empty(0, 4),
        torch.tensor([True, False]),
        torch.tensor([2**62, -1]),
        torch.tensor([1e-300, math.nan, -0.0], dtype=torch.float64),
        torch.tensor([1.5, math.inf], dtype=torch.bfloat16),
        torch.tensor([1 + 2j], dtype=torch.complex64),
        torch.arange(6).reshape(2, 3).T,
        torch.arange(10)[2::3],
        torch.arange(10.0)[3:7],
        torch.zeros(1).expand(3, 4),
        torch.Generator().manual_seed(3).get_state(),
        np.arange(6, dtype=np.int16)[::-2],
        np.array(2.5),
        np.zeros((0, 3)),
        np.asfortranarray(np.eye(3)[:, :2]),
        np.float32(0.1),
        np.float64(math.nan),
        np.bool_(True),
        [None, True, False, 0, -0.0, 1.0, math.nan, math.inf, -math.inf, "", "ü\n\x00", 2**53 + 1, -(10**5000)],
        {0: {"a": ()}, "0": [()], (1, "b"): [[]], None: {}, True: 1.5, 2.5: (1, (2,), [3])},
        {"tensor": "tensor", "dict": {"tuple": [1]}, "pairs": [], "__metadata__": torch.ones(2)},
        {"a/b": torch.zeros(2), "a": {"b": torch.ones(2)}, "a/b~1": torch.full((2,), 2.0)},
        {},
    ],
)
def test_round_trip(tmp_path: Path, state: Any) -> None:
    assert same(round_trip(tmp_path, state), state)


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | hnp.arrays(
        st.sampled_from([np.float64, np.float32, np.int64, np.uint8, np.bool_]),
        hnp.array_shapes(min_dims=0, min_side=0, max_dims=3, max_side=3),
    )
    | hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=4)).map(lambda a: torch.from_numpy(a).T)
)
KEYS = st.text(max_size=5) | st.integers() | st.none() | st.tuples(st.integers(), st.text(max_size=2))
STATES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(KEYS, inner),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(state=STATES)
def test_any_state_survives(tmp_path: Path, state: Any) -> None:
    assert same(round_trip(tmp_path, state), state)


def test_optimiser_resumes_exactly(tmp_path: Path) -> None:
    """Three steps, a save, two more steps; the loaded twin makes the same two steps, to the bit."""

    def build() -> tuple[torch.nn.Linear, torch.optim.Adam]:
        torch.manual_seed(0)
        net = torch.nn.Linear(3, 2)
        return net, torch.optim.Adam(net.parameters(), lr=0.1)

    def step(net: torch.nn.Linear, optimiser: torch.optim.Adam) -> None:
        optimiser.zero_grad()
        net(torch.ones(4, 3)).square().sum().backward()
        optimiser.step()

    net, optimiser = build()
    for _ in range(3):
        step(net, optimiser)
    checkpoint.save(tmp_path, {"net": net.state_dict(), "optimiser": optimiser.state_dict()}, 3)
    twin, twin_optimiser = build()
    state = checkpoint.load(tmp_path / "round-00000003")
    twin.load_state_dict(state["net"])
    twin_optimiser.load_state_dict(state["optimiser"])
    for _ in range(2):
        step(net, optimiser)
        step(twin, twin_optimiser)
    assert torch.equal(net.weight, twin.weight)


def test_tied_tensors_stay_tied_and_overlapping_ones_keep_their_values(tmp_path: Path) -> None:
    base = torch.arange(12.0)
    tied = torch.nn.Parameter(torch.ones(1000, 100))
    array = np.arange(5.0)
    waves = torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex64)
    conjugate = [waves, waves.conj(), waves.imag, waves.conj().imag]
    state = {
        "conjugate": conjugate,
        "tied": [tied, tied.detach(), tied.T],
        "views": (base, base[:6], base[3:9], base.view(3, 4)[:, 1], base.view(3, 4)),
        "arrays": [array, array[:3], torch.from_numpy(array)],
    }
    path = checkpoint.save(tmp_path, state, 1)
    back = checkpoint.load(path)
    assert back["tied"][0] is back["tied"][1]
    assert same(back["tied"][2], tied.detach().T)
    assert same(back["conjugate"], [x.resolve_conj().resolve_neg() for x in conjugate])
    assert same(back["views"], state["views"])
    assert same(back["arrays"], state["arrays"])
    assert (path / "state.safetensors").stat().st_size < 2 * tied.nbytes + 2000, "tied weights are stored once"


def test_temporary_copies_are_not_mistaken_for_one_another(tmp_path: Path) -> None:
    """Each reversed array is copied into fresh memory, which must not be given out twice while names are kept."""
    state = [np.full(1000, n)[::-1] for n in range(50)]
    assert same(round_trip(tmp_path, state), state)


def test_what_comes_back_can_be_written_to(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, {"t": torch.zeros(3), "a": np.zeros(3)}, 1)
    back = checkpoint.load(path)
    back["t"] += 1
    back["a"] += 1
    assert same(checkpoint.load(path), {"t": torch.zeros(3), "a": np.zeros(3)})


def test_foreign_byte_order_and_ordered_dicts_become_plain(tmp_path: Path) -> None:
    state = OrderedDict(b=np.array([1, 2], dtype=">i4"), a=1)
    assert same(round_trip(tmp_path, state), {"b": np.array([1, 2], dtype=np.int32), "a": 1})


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (object(), "object"),
        ({1, 2}, "set"),
        (b"x", "bytes"),
        (1j, "complex"),
        (torch.Size([1]), "Size"),
        (np.array(["a"]), "<U1"),
        (np.zeros(1, dtype=np.longdouble), "longdouble|float128"),
        (torch.zeros(2, dtype=torch.complex128), "complex128"),
        (torch.zeros(2, 2).to_sparse(), "sparse"),
        (torch.zeros(2, device="meta"), "meta"),
    ],
)
def test_what_cannot_be_held_is_named_and_leaves_nothing_behind(tmp_path: Path, value: Any, word: str) -> None:
    with pytest.raises(TypeError, match=f"state/policy/0 is an? .*({word})"):
        checkpoint.save(tmp_path, {"policy": [value]}, 1)
    assert list(tmp_path.iterdir()) == []


def test_the_last_ones_and_the_best_are_kept(tmp_path: Path) -> None:
    for counter in range(1, 9):
        checkpoint.save(tmp_path, {"n": counter}, counter, keep=2, is_best=counter in (1, 3))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "best.json",
        "round-00000003",
        "round-00000007",
        "round-00000008",
    ]
    assert checkpoint.best(tmp_path) == tmp_path / "round-00000003"
    assert json.loads((tmp_path / "best.json").read_text()) == {"counter": 3, "folder": "round-00000003"}
    assert checkpoint.counter_of(checkpoint.latest(tmp_path) or tmp_path) == 8


def test_a_second_save_of_a_round_replaces_it_and_it_stays_best(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, "first", 4, is_best=True)
    path = checkpoint.save(tmp_path, "second", 4)
    assert checkpoint.load(path) == "second"
    assert checkpoint.best(tmp_path) == path


def test_an_earlier_round_is_refused(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 0, 9)
    with pytest.raises(UserError, match="round 9, later than round 5"):
        checkpoint.save(tmp_path, 0, 5)


@pytest.mark.parametrize(("keep", "counter"), [(0, 1), (1, -1)])
def test_senseless_numbers_are_refused(tmp_path: Path, keep: int, counter: int) -> None:
    with pytest.raises(UserError, match="at least 1"):
        checkpoint.save(tmp_path, 0, counter, keep=keep)


def test_nothing_there(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path) is None
    assert checkpoint.latest(tmp_path / "none") is None
    assert checkpoint.best(tmp_path) is None
    with pytest.raises(UserError, match="There is no checkpoint"):
        checkpoint.load(tmp_path / "round-00000001")


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    for counter in (1, 2):
        checkpoint.save(tmp_path, {"x": torch.arange(5.0), "n": counter, "name": "a"}, counter, is_best=counter == 2)
    return tmp_path / "round-00000002"


def complaint(folder: Path) -> str:
    with pytest.raises(UserError) as by_latest:
        checkpoint.latest(folder.parent)
    with pytest.raises(UserError) as by_load:
        checkpoint.load(folder)
    assert str(by_latest.value) == str(by_load.value)
    return str(by_latest.value)


@pytest.mark.parametrize("name", FILES)
def test_any_altered_byte_is_found(damaged: Path, name: str) -> None:
    file = damaged / name
    whole = file.read_bytes()
    for position in range(len(whole)):
        for flip in (0x01, 0x20, 0x80):
            file.write_bytes(whole[:position] + bytes([whole[position] ^ flip]) + whole[position + 1 :])
            problem = checkpoint._problem(damaged)
            assert problem is not None
            assert name in problem
            assert "altered" in problem or position >= len(whole) - 2
    file.write_bytes(whole)
    assert checkpoint.latest(damaged.parent) == damaged


@pytest.mark.parametrize("name", FILES)
def test_every_cut_is_told_from_an_alteration(damaged: Path, name: str) -> None:
    whole = (damaged / name).read_bytes()
    for length in range(len(whole)):
        (damaged / name).write_bytes(whole[:length])
        problem = checkpoint._problem(damaged)
        assert problem is not None
        assert f"{name} is truncated" in problem
        assert f"{length} bytes" in problem


@pytest.mark.parametrize("name", FILES)
def test_damage_is_explained_with_a_way_on(damaged: Path, name: str) -> None:
    (damaged / name).unlink()
    said = complaint(damaged)
    assert f"{name} is missing" in said
    assert f"Delete the folder {damaged}; the run, resumed, then goes on from round-00000001." in said
    assert checkpoint.best(damaged.parent) == damaged, "a damaged best is not quietly swapped for another"
    shutil.rmtree(damaged)
    assert checkpoint.latest(damaged.parent) == damaged.with_name("round-00000001")


def test_a_longer_file_is_altered(damaged: Path) -> None:
    with (damaged / "state.safetensors").open("ab") as file:
        file.write(b"x")
    assert "state.safetensors is altered" in complaint(damaged)


def test_when_all_are_damaged_the_run_starts_anew(damaged: Path) -> None:
    for folder in (damaged, damaged.with_name("round-00000001")):
        (folder / "state.json").unlink()
    assert "starts from the beginning, as no earlier one is intact" in complaint(damaged)


@pytest.mark.parametrize("is_forged", [False, True])
@pytest.mark.parametrize("is_zip", [False, True])
def test_a_pickle_is_never_loaded(damaged: Path, is_forged: bool, is_zip: bool) -> None:
    mark = damaged.parent / "executed"
    bomb = type("Bomb", (), {"__reduce__": lambda self: (Path.touch, (mark,))})()
    torch.save({"x": bomb}, damaged / "state.safetensors", _use_new_zipfile_serialization=is_zip)
    if is_forged:
        reseal(damaged)
        with pytest.raises(UserError, match="does not hold a saved state"):
            checkpoint.load(damaged)
    else:
        assert "replaced by a pickle, which is never loaded" in complaint(damaged)
    assert not mark.exists()


@pytest.mark.parametrize(
    "tree", ['{"eval":"1"}', '{"tensor":"nowhere"}', '{"a":1,"b":2}', '{"dict":3}', "[", '{"int":3}']
)
def test_a_forged_tree_gets_a_sentence(damaged: Path, tree: str) -> None:
    (damaged / "state.json").write_text(tree)
    reseal(damaged)
    with pytest.raises(UserError, match="does not hold a saved state"):
        checkpoint.load(damaged)


def test_a_renamed_folder_is_noticed_where_the_name_counts(damaged: Path) -> None:
    renamed = damaged.rename(damaged.with_name("round-00000007"))
    assert "the folder was renamed: it holds round 2" in complaint(renamed)
    exported = renamed.rename(renamed.with_name("my-best-reward"))
    assert checkpoint.load(exported)["n"] == 2


def test_a_later_format_is_named(damaged: Path) -> None:
    manifest = json.loads((damaged / "manifest.json").read_text())
    del manifest["sha256"]
    (damaged / "manifest.json").write_text(checkpoint._sealed({**manifest, "format": 2}))
    assert "it has format 2, and this version of unified-irl reads format 1" in complaint(damaged)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "No space left on device.*Free some space"),
        (errno.EROFS, "Read-only file system.*Make the directory writable"),
        (errno.EACCES, "Permission denied.*Make the directory writable"),
        (errno.EIO, "Input/output error.*Mend that"),
    ],
)
@pytest.mark.parametrize("call", ["fsync", "mkdir", "rename"])
def test_a_disk_that_fails_leaves_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str, call: str
) -> None:
    checkpoint.save(tmp_path, "good", 1)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(UserError, match=f"round 2.*{words}") as caught:
            checkpoint.save(tmp_path, "bad", 2)
    assert "round-00000001 is intact" in str(caught.value)
    assert checkpoint.load(checkpoint.latest(tmp_path) or tmp_path) == "good"
    assert [p.name for p in tmp_path.iterdir()] == ["round-00000001"]


def test_a_path_that_cannot_be_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"could not be written.*There is no other checkpoint"):
        checkpoint.save(tmp_path / "file" / "checkpoints", 0, 1)


FULL_DISK = """
import os, resource, sys
from pathlib import Path
import torch
from unified_irl import checkpoint
from unified_irl.errors import UserError
directory = Path(sys.argv[1])
checkpoint.save(directory, {"x": torch.zeros(1000)}, 1)
if sys.argv[2] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    checkpoint.save(directory, {"x": torch.zeros(1_000_000)}, 2)
except UserError as error:
    print(error)
print(sorted(os.listdir(directory)), checkpoint.load(checkpoint.latest(directory))["x"].shape)
"""


def test_a_real_limit_on_file_size(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path), "limit"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "File too large" in out
    assert "round-00000001 is intact" in out
    assert "['round-00000001'] torch.Size([1000])" in out


def test_a_real_full_disk(tmp_path: Path) -> None:
    """A one-megabyte disk, mounted where no other process sees it, and gone with the process."""
    mount = ["unshare", "--mount", "--map-root-user", "sh", "-c", 'mount -t tmpfs -o size=1m t "$0" && exec "$@"']
    if not shutil.which("unshare") or subprocess.run([*mount, str(tmp_path), "true"], capture_output=True).returncode:
        pytest.skip("cannot mount a small disk here")
    command = [*mount, str(tmp_path), sys.executable, "-c", FULL_DISK, str(tmp_path / "checkpoints"), "disk"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "No space left on device. The checkpoint round-00000001 is intact. Free some space" in out
    assert "['round-00000001'] torch.Size([1000])" in out


KILLED = """
import os, random, signal, sys, time, traceback
from pathlib import Path
import torch
from unified_irl import checkpoint

def state(n):
    return {"x": torch.full((20_000,), n), "n": n, "history": list(range(n % 50))}

def newest(directory):
    path = checkpoint.latest(directory)
    if path is None:
        return 0
    back = checkpoint.load(path)
    n = back["n"]
    assert torch.equal(back["x"], state(n)["x"]) and back["history"] == state(n)["history"]
    assert checkpoint.counter_of(path) == n // 2, (path, n)
    return n

def in_child(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return pid

def save(directory, n):
    # Every round is saved twice, so that replacing is interrupted too.
    checkpoint.save(directory, state(n), n // 2, keep=2, is_best=n % 3 == 0)

def at_random(directory, times):
    done = 0
    rng = random.Random(0)
    for _ in range(times):
        def work():
            n = done
            while True:
                n += 1
                save(directory, n)
        pid = in_child(work)
        time.sleep(rng.uniform(0.0, 0.05))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status)
        now = newest(directory)
        assert now >= done, (now, done)
        done = now
    print("saved", done)

def at_every_call(directory):
    # The interpreter announces every open, mkdir, rename, rmdir and remove: die before the first, the second, ...
    done, deaths = 1, 0
    for n in range(1, 9):
        save(directory, n)
    done = 8
    for n in (9, 10):
        step = 0
        while True:
            step += 1
            def work():
                count = 0
                def hook(event, _):
                    nonlocal count
                    if event.startswith(("os.", "open", "shutil.")):
                        count += 1
                        if count == step:
                            os.kill(os.getpid(), signal.SIGKILL)
                sys.addaudithook(hook)
                save(directory, n)
            _, status = os.waitpid(in_child(work), 0)
            now = newest(directory)
            assert now in (done, n), (now, done, n)
            assert checkpoint.load(checkpoint.best(directory))["n"] in (6, 7, 9)
            torn = [p.name for p in directory.glob("round-*") if checkpoint._problem(p)]
            assert not torn, torn
            if os.WIFEXITED(status):
                assert status == 0
                break
            deaths += 1
        assert newest(directory) == n
        done = n
        hidden = [name for name in os.listdir(directory) if name.startswith(".")]
        assert not hidden, hidden
    print("deaths", deaths)

if sys.argv[2] == "random":
    at_random(Path(sys.argv[1]), 50)
else:
    at_every_call(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("when", ["random", "every call"])
def test_a_killed_writer_never_costs_a_checkpoint(tmp_path: Path, when: str) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path), when]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    word, count = result.stdout.split()
    assert int(count) > (10 if word == "saved" else 50)
