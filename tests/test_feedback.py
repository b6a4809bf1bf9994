"""Feedback in memory and in files: what goes in comes out, and each way to be wrong has its sentence."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from envs.walks.config import WalksConfig
from envs.walks.domain import WalksDomain
from envs.walks.feedback import checked
from unified_irl import feedback_files
from unified_irl.errors import UserError
from unified_irl.feedback import Demonstrations, Preferences, Provenance
from unified_irl.feedback_files import load_demonstrations, load_preferences, save_demonstrations, save_preferences
from unified_irl.trajectories import Trajectories

torch.set_num_threads(1)

CONFIG = WalksConfig(num_nodes=6, num_neighbours=2, horizon=4, num_demonstrations=5, num_preferences=5)
DOMAIN = WalksDomain(CONFIG, seed=0)
PERSON = Provenance(maker="person 7 🚶", quality=0.25, labeller="tired", source="a café")


def shown() -> Demonstrations:
    data = DOMAIN.demonstrations
    return replace(data, maker=torch.tensor([0, 1, 1, 0, 0]), makers=(*data.makers, PERSON))


def compared() -> Preferences:
    return replace(DOMAIN.preferences, margin=torch.linspace(0.0, 1.0, 5, dtype=torch.float64))


def same(one: Trajectories, other: Trajectories) -> bool:
    ours, theirs = (state.pop("data") | state for state in (one.state_dict(), other.state_dict()))
    return ours.keys() == theirs.keys() and all(
        ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name]) for name in ours
    )


def test_demonstrations_come_back_as_they_were(tmp_path: Path):
    path = tmp_path / "new folder" / "shown.safetensors"
    save_demonstrations(path, shown())
    back = load_demonstrations(path)
    assert same(back.trajectories, shown().trajectories)
    assert torch.equal(back.maker, shown().maker)
    assert back.makers == shown().makers
    assert [one.name for one in path.parent.iterdir()] == ["shown.safetensors"]


@pytest.mark.parametrize("level", ["whole", "segment", "step"])
def test_preferences_come_back_as_they_were(tmp_path: Path, level: str):
    path, before = tmp_path / "compared.safetensors", compared()
    if level != "whole":
        before = WalksDomain(replace(CONFIG, preference_level=level, segment_length=2), 0).preferences
    save_preferences(path, before)
    back = load_preferences(str(path))
    assert same(back.first, before.first)
    assert same(back.second, before.second)
    for name in ("label", "margin", "maker"):
        assert torch.equal(getattr(back, name), getattr(before, name))
    assert (back.makers, back.level) == (before.makers, level)


def test_saving_replaces_the_file_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A writer that fails leaves the old file as it was."""
    path = tmp_path / "shown.safetensors"
    save_demonstrations(path, shown())
    before = path.read_bytes()

    def full(tensors: Any, partial: Path, metadata: Any) -> None:
        partial.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(
        UserError, match=r"could not be written: No space left on device\. Free space or choose another"
    ):
        save_demonstrations(path, shown()[:2])
    assert path.read_bytes() == before


def test_rows_of_feedback_are_chosen_and_joined_together():
    some = compared()[torch.tensor([3, 1])]
    assert torch.equal(some.label, compared().label[[3, 1]])
    assert torch.equal(some.margin, compared().margin[[3, 1]])
    assert same(some.first, compared().first[torch.tensor([3, 1])])
    whole = Preferences.cat([compared()[:2], compared()[2:]])
    assert same(whole.second, compared().second)
    assert torch.equal(whole.label, compared().label)
    assert same(shown()[1:3].to("cpu").trajectories, shown().trajectories[1:3])
    assert shown()[1:3].maker.tolist() == [1, 1]
    assert same(compared().to("cpu").first, compared().first)
    with pytest.raises(AssertionError):
        Preferences.cat([compared(), replace(compared(), level="segment")])


WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: replace(shown(), maker=torch.zeros(4, dtype=torch.long)),
     "it: 'maker' has shape [4]; expected [5], one entry per record."),
    (lambda: replace(shown(), maker=torch.tensor([0, 1, 2, 0, 0])),
     "it: 'maker' names entry 2 of a list of 2 makers; every record must point into the list."),
    (lambda: replace(shown(), maker=torch.tensor([0, 1, -1, 0, 0])),
     "it: 'maker' names entry -1 of a list of 2 makers; every record must point into the list."),
    (lambda: replace(shown(), maker=torch.tensor([0.0, 0.5, 0.0, 0.0, torch.nan])),
     "it: 'maker' holds fractions, not entries, of a list of 2 makers; every record must point into the list."),
    (lambda: replace(shown(), makers=()),
     "it: 'maker' names entry 0 of a list of 0 makers; every record must point into the list."),
    (lambda: replace(shown(), trajectories=shown().trajectories[:0]),
     "it: it holds no behaviour; expected at least one behaviour of at least one step."),
    (lambda: replace(compared(), first=compared().first[:0]),
     "it, first side: it holds no behaviour; expected at least one behaviour of at least one step."),
    (lambda: replace(compared(), second=replace(compared().second, weight=-compared().second.weight)),
     "it, second side: 'weight' holds negative numbers; weights say how much a behaviour counts, 0 or more."),
    (lambda: replace(compared(), first=compared().first[:3]),
     "it: 3 first sides, 5 second sides and 5 labels; expected the same number of each."),
    (lambda: replace(compared(), label=compared().label[:, None]),
     "it: 'label' has shape [5, 1] of torch.float64; expected one float per comparison."),
    (lambda: replace(compared(), label=compared().label.long()),
     "it: 'label' has shape [5] of torch.int64; expected one float per comparison."),
    (lambda: replace(compared(), label=compared().label + 1.5),
     "it: a label is not between 0 and 1; write 1 for the first, 0 for the second, 0.5 for a tie."),
    (lambda: replace(compared(), label=compared().label * torch.nan),
     "it: a label is not between 0 and 1; write 1 for the first, 0 for the second, 0.5 for a tie."),
    (lambda: replace(compared(), margin=torch.tensor([0.0, 0.0, 0.0, 0.0, -1.0])),
     "it: 'margin' must hold one finite number of 0 or more per comparison."),
    (lambda: replace(compared(), margin=torch.tensor([0.0, 0.0, 0.0, 0.0, torch.inf])),
     "it: 'margin' must hold one finite number of 0 or more per comparison."),
    (lambda: replace(compared(), margin=torch.zeros(4)),
     "it: 'margin' must hold one finite number of 0 or more per comparison."),
    (lambda: replace(compared(), level="episode"),
     "it: level 'episode' is unknown; expected one of step, segment, whole."),
    (lambda: replace(compared(), second=compared().second[torch.tensor([1, 2, 3, 4, 0])]),
     "it: the two sides of a comparison answer different contexts; whole behaviours can only be compared within one "
     "context (compare segments otherwise)."),
]  # fmt: skip


@pytest.mark.parametrize(("make", "sentence"), WRONG)
def test_bad_feedback_gets_a_sentence(make: Callable[[], Any], sentence: str):
    with pytest.raises(UserError) as caught:
        make().validated("it")
    assert str(caught.value) == sentence


def test_segments_of_different_contexts_can_be_compared():
    apart = replace(compared(), second=compared().second[torch.tensor([1, 2, 3, 4, 0])], level="segment")
    assert apart.validated() is apart


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shown.safetensors"
    save_demonstrations(path, shown())
    return path


def fails(path: Path, load: Callable[[Path], Any] = load_demonstrations) -> str:
    with pytest.raises(UserError) as caught:
        load(path)
    return str(caught.value).replace(str(path), "FILE")


def rewrite(path: Path, tensors: dict[str, Any] | None = None, header: Any = None) -> None:
    """The file with other tensors or another header of ours, and otherwise in order."""
    with safe_open(path, framework="pt") as opened:
        metadata = opened.metadata()
    old = load_file(path)
    if header is not None:
        metadata = {"unified_irl": header if isinstance(header, str) else json.dumps(header)}
    kept = {name: value for name, value in (old | (tensors or {})).items() if value is not None}
    save_file(kept, path, metadata=metadata)


def header_of(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as opened:
        return json.loads(opened.metadata()["unified_irl"])


def put_raw_header(path: Path, change: Callable[[str], str]) -> None:
    """Change the text of the safetensors header itself."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    text = change(data[8 : 8 + size].decode()).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])


def test_a_missing_file(tmp_path: Path):
    expected = "FILE: there is no such file; expected a file of demonstrations as `unified-irl collect` writes it."
    assert fails(tmp_path / "nowhere.safetensors") == expected
    assert fails(tmp_path) == expected
    assert "a file of preferences" in fails(tmp_path, load_preferences)


def test_an_empty_file(file: Path):
    file.write_bytes(b"")
    assert fails(file).startswith("FILE: the file is empty; expected a file of demonstrations")


@pytest.mark.parametrize("share", [0.999, 0.5, 0.1, 0.01, 0.0005])
def test_a_truncated_file(file: Path, share: float):
    data = file.read_bytes()
    file.write_bytes(data[: max(1, int(share * len(data)))])
    sentence = fails(file)
    assert sentence.startswith("FILE: not a whole safetensors file (")
    assert sentence.endswith("); was it cut short, or is it something else?")


def test_a_longer_file(file: Path):
    file.write_bytes(file.read_bytes() + b"more")
    assert fails(file).startswith("FILE: not a whole safetensors file (")


class Bomb:
    exploded = False

    def __reduce__(self) -> Any:
        return (setattr, (Bomb, "exploded", True))


def test_a_pickle_is_refused_and_never_opened(file: Path):
    for data in (pickle.dumps(Bomb()), pickle.dumps(shown().makers)):
        file.write_bytes(data)
        assert fails(file).startswith("FILE: not a whole safetensors file (")
    torch.save({"a": torch.zeros(3)}, file)
    assert fails(file).startswith("FILE: not a whole safetensors file (")
    assert not Bomb.exploded


def test_text_is_refused(file: Path):
    file.write_text("state,action\n1,2\n" * 100)
    assert fails(file).startswith("FILE: not a whole safetensors file (")


def test_the_wrong_kind(file: Path):
    assert fails(file, load_preferences) == (
        "FILE: holds demonstrations in 'unified-irl feedback 1'; expected preferences in 'unified-irl feedback 1'."
    )
    save_preferences(file, compared())
    assert fails(file).startswith("FILE: holds preferences in 'unified-irl feedback 1'; expected demonstrations in")


def test_a_format_of_tomorrow(file: Path):
    rewrite(file, header=header_of(file) | {"format": "unified-irl feedback 2"})
    assert fails(file) == (
        "FILE: holds demonstrations in 'unified-irl feedback 2'; expected demonstrations in 'unified-irl feedback 1'."
    )


@pytest.mark.parametrize("header", ["", "[]", "no JSON", "{}", '{"makers": 3}', "[" * 100_000])
def test_a_safetensors_file_of_somebody_else(file: Path, header: str):
    rewrite(file, header=header)
    assert fails(file) == "FILE: its header does not say who made it; expected a file of 'unified-irl feedback 1'."


def test_no_header_at_all(file: Path):
    save_file(load_file(file), file)
    assert fails(file).startswith("FILE: its header does not say who made it;")


@pytest.mark.parametrize(
    ("maker", "words"),
    [
        ({"maker": 3}, "maker 1: 'maker' is 3, expected "),
        ({}, "maker 1: 'maker' is missing;"),
        ({"maker": "x", "qualty": 1.0}, "maker 1: the key 'qualty' is not known: did you mean quality?"),
        ({"maker": "x", "quality": "high"}, "maker 1: 'quality' is \"high\", expected "),
        ("x", "maker 1: "),
    ],
)
def test_a_tampered_maker(file: Path, maker: Any, words: str):
    rewrite(file, header=header_of(file) | {"makers": [{"maker": "a"}, maker]})
    assert fails(file).startswith(f"FILE, {words}")


def test_a_list_of_makers_that_is_too_short(file: Path):
    rewrite(file, header=header_of(file) | {"makers": [{"maker": "a"}]})
    assert fails(file) == ("FILE: 'maker' names entry 1 of a list of 1 makers; every record must point into the list.")


def test_keys_that_are_there_twice(file: Path):
    """A second 'maker' tensor in the header of the file, and a second 'kind' in ours."""
    entry = '"maker":{"dtype":"I64","shape":[5],"data_offsets":[0,40]},'
    good = file.read_bytes()
    put_raw_header(file, lambda text: "{" + entry + text[1:])
    assert fails(file) == "FILE: its header names maker twice; expected every key once."

    file.write_bytes(good)
    rewrite(file, header=json.dumps(header_of(file))[:-1] + ', "kind": "demonstrations"}')
    assert fails(file) == "FILE: its header names kind twice; expected every key once."


def test_a_tampered_file_header(file: Path):
    """Offsets that point elsewhere, a size beyond the file, nesting without end: refused, never followed."""
    good = file.read_bytes()
    for change in (
        lambda text: text.replace('"I64"', '"F64"', 1).replace('"BOOL"', '"F64"'),
        lambda text: text.replace("[0,", "[8,", 1),
        lambda text: text.replace('"dtype"', '"dtyp"', 1),
        lambda text: "[" * 50_000 + text,
        lambda text: text.rstrip()[:-1],
        lambda text: text.replace('"shape"', '"sh\0ape"', 1),
    ):
        put_raw_header(file, change)
        assert fails(file).startswith("FILE: not a whole safetensors file ("), change
        file.write_bytes(good)
    file.write_bytes(struct.pack("<Q", 2**62) + good[8:])
    assert fails(file).startswith("FILE: not a whole safetensors file (")


@pytest.mark.parametrize("name", ["maker", "trajectories.mask", "trajectories.weight", "trajectories.start_step"])
def test_a_missing_tensor(file: Path, name: str):
    rewrite(file, tensors={name: None})
    sentence = fails(file)
    assert sentence.startswith(f"FILE: '{name}' is missing; the file holds ")
    assert "trajectories.data.node" in sentence


def test_bad_tensors_get_the_sentence_of_bad_feedback(file: Path):
    tensors = load_file(file)
    good = file.read_bytes()
    for changed, words in (
        ({"trajectories.weight": tensors["trajectories.weight"] * torch.nan}, "FILE: 'weight' holds NaN or infinite"),
        ({"trajectories.mask": tensors["trajectories.mask"][:, :1].clone()}, "FILE: 'action' has shape [5, "),
        ({"trajectories.mask": tensors["trajectories.mask"].double()}, "FILE: 'mask' holds torch.float64;"),
        ({"trajectories.context_id": tensors["trajectories.context_id"][:3]}, "FILE: 'context_id' has shape [3]"),
        ({"maker": tensors["maker"] + 5}, "FILE: 'maker' names entry "),
    ):
        rewrite(file, tensors=changed)
        assert fails(file).startswith(words)
        file.write_bytes(good)
    path = file.with_name("compared.safetensors")
    save_preferences(path, compared())
    rewrite(path, tensors={"label": torch.full((5,), 2.0)})
    assert fails(path, load_preferences).startswith("FILE: a label is not between 0 and 1;")
    rewrite(path, tensors={"label": torch.ones(5)}, header=header_of(path) | {"level": "episode"})
    assert fails(path, load_preferences).startswith("FILE: level 'episode' is unknown;")


def test_a_domain_learns_from_its_files(tmp_path: Path, file: Path):
    """A seed orders the contexts, so numbers from a file of another seed must be translated: each walk keeps its start
    and its goal. A file of another graph is refused.
    """
    path = tmp_path / "compared.safetensors"
    save_preferences(path, compared())
    domain = WalksDomain(replace(CONFIG, demonstrations_file=str(file), preferences_file=str(path)), seed=9)
    assert not torch.equal(domain.contexts.data["start"], DOMAIN.contexts.data["start"])
    for here, there in (
        (domain.demonstrations.trajectories, shown().trajectories),
        (domain.preferences.first, compared().first),
        (domain.preferences.second, compared().second),
    ):
        assert same(replace(here, context_id=there.context_id), there)
        contexts = domain.contexts[here.context_id]
        assert torch.equal(contexts.data["start"], there.data["node"][:, 0])
        assert torch.equal(contexts.data["goal"], there.data["goal"][:, 0])
    again = WalksDomain(domain.config, seed=0)
    assert same(again.demonstrations.trajectories, shown().trajectories)
    for name, changes in (("demonstrations", {"graph_seed": 1}), ("preferences", {"num_nodes": 4})):
        other = WalksDomain(replace(domain.config, num_neighbours=1, **changes), seed=0)
        with pytest.raises(UserError, match="Was the file made for another graph"):
            getattr(other, name)


def altered(**changes: Any) -> Demonstrations:
    trajectories = shown().trajectories
    data = trajectories.data | {name: value for name, value in changes.items() if name in trajectories.data}
    fields = {name: value for name, value in changes.items() if name not in data}
    data = {name: value for name, value in data.items() if value is not None}
    return replace(shown(), trajectories=replace(trajectories, data=data, **fields))


def test_walks_of_another_graph_get_a_sentence():
    """6 nodes and goals; the first demonstration is sent along a slot that its node does not have."""
    walks, graph = shown().trajectories, DOMAIN.world.graph
    node, action = walks.data["node"], walks.data["action"]
    impossible = (~graph.possible_NA[node[:, 0]]).nonzero()
    assert len(impossible)
    row, slot = impossible[0].tolist()
    elsewhere = action.clone()
    elsewhere[row, 0] = slot
    for changes, sentence in (
        ({"goal": None}, "it: 'goal' is missing; a walk needs node, action and goal for every step."),
        ({"node": node + 6}, f"it: 'node' runs from {int(node.min()) + 6} to {int(node.max()) + 6}; expected whole "
         "numbers from 0 to 5 in this graph. Was the file made for another graph (num_nodes, graph_seed)?"),
        ({"node": node.double()}, f"it: 'node' holds torch.float64 of shape {list(node.shape)}; expected whole numbers "
         f"of shape {list(node.shape)}, one for every step."),
        ({"action": action - 1}, f"it: 'action' runs from -1 to {int(action.max()) - 1}; expected whole numbers from "
         f"0 to {graph.shape[2] - 1} in this graph. Was the file made for another graph (num_nodes, graph_seed)?"),
        ({"action": elsewhere}, "it: 1 walks take an edge that this graph does not have. "
         "Was the file made for another graph (num_nodes, graph_seed)?"),
        ({"context_id": walks.context_id + 30}, "it: 'context_id' must lie between 0 and 29 in this graph."),
        ({"context_id": walks.context_id - 30}, "it: 'context_id' must lie between 0 and 29 in this graph."),
        ({"start_step": walks.start_step + 4}, "it: a walk is longer than the horizon of 4 steps; raise the horizon."),
    ):  # fmt: skip
        with pytest.raises(UserError) as caught:
            checked(DOMAIN.world, altered(**changes), "it")
        assert str(caught.value) == sentence
    assert same(checked(DOMAIN.world, shown(), "it").trajectories, shown().trajectories)
    goal = walks.data["node"][:, :1] * walks.mask
    with pytest.raises(UserError, match=r"^it: a walk starts at its own goal, which is no context of this graph\.$"):
        checked(DOMAIN.world, altered(goal=goal), "it")
    worse = replace(compared(), second=replace(compared().second, data={}))
    with pytest.raises(UserError, match=r"^it, second side: 'node' is missing"):
        checked(DOMAIN.world, worse, "it")


def test_walks_that_do_not_lead_where_they_go_next_get_a_sentence():
    """Every step is possible by itself, but the second one begins where the first did not lead."""
    walks, graph = shown().trajectories, DOMAIN.world.graph
    row = int((walks.mask.sum(1) > 1).nonzero()[0])
    node, action = walks.data["node"].clone(), walks.data["action"].clone()
    node[row, 1] = (int(node[row, 1]) + 1) % 6
    action[row, 1] = graph.shape[2] - 1
    with pytest.raises(UserError, match=r"^it: 1 walks take an edge that this graph does not have"):
        checked(DOMAIN.world, altered(node=node, action=action), "it")


def test_the_format_is_named_in_one_place():
    assert feedback_files.FORMAT == "unified-irl feedback 1"
