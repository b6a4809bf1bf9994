"""References that remember: the same numbers, each row once, and what is kept on disk."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from language import MANNER, TINY, adapters, counted, domain, said_by, short, stir
from speakers import model_of
from torch import Tensor

from llm import references, speech
from llm.config import LoRAConfig, SpeechConfig
from llm.policy import LanguagePolicy
from llm.references import Remembering, row_keys
from llm.roles import Whole
from llm.speech import Speech, lengths, passes
from unified_irl.trajectories import Trajectories

torch.set_num_threads(1)


@pytest.fixture
def role() -> Whole:
    return Whole(model_of("llama"))


@pytest.fixture
def own(role: Whole) -> Trajectories:
    """A dozen completions, no two alike."""
    return said_by(role)


def rows_of(calls: list[Any]) -> int:
    return sum(len(call[1]) for call in calls)


def plainly(role: Whole, behaviours: Trajectories) -> Tensor:
    with torch.no_grad():
        return Speech(role, MANNER).log_prob(behaviours)


def test_it_says_what_its_role_says(role: Whole, own: Trajectories) -> None:
    """Anew, remembered, in other rows and other padding, on some rows of which some are known; zero off the mask."""
    reference, expected = Remembering(role, MANNER), plainly(role, own)
    order = torch.randperm(len(own), generator=torch.Generator().manual_seed(0))
    for some in (own[order[:5]], own, own, own[order]):
        torch.testing.assert_close(reference.log_prob(some), plainly(role, some), atol=1e-5, rtol=0.0)
    assert torch.equal(reference.log_prob(own), reference.log_prob(own))
    wider = reference.log_prob(own.padded(own.num_steps + 4))
    torch.testing.assert_close(wider[:, : own.num_steps], expected, atol=1e-5, rtol=0.0)
    assert not bool(wider[:, own.num_steps :].any())
    assert not bool(reference.log_prob(own)[~own.mask].any())
    assert not reference.log_prob(own).requires_grad


def test_each_row_is_computed_once(role: Whole, own: Trajectories, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = Remembering(role, MANNER)
    with counted(speech, "log_prob", monkeypatch) as calls:
        reference.log_prob(own[:5])
        assert rows_of(calls) == 5
        reference.log_prob(own)
        assert rows_of(calls) == 12
        reference.log_prob(own[torch.tensor([3, 3, 11, 0])])
        reference.log_prob(own.padded(60))
        assert rows_of(calls) == 12
    fresh = Remembering(role, MANNER)
    with counted(speech, "log_prob", monkeypatch) as calls:
        twice = fresh.log_prob(own[torch.tensor([3, 0, 3, 3])])
        assert rows_of(calls) == 2, "a row that comes several times in one batch"
    assert torch.equal(twice[0], twice[2])
    assert torch.equal(twice, fresh.log_prob(own[torch.tensor([3, 0, 3, 3])]))


def test_a_row_is_its_tokens_and_which_of_them_were_chosen(own: Trajectories) -> None:
    keys = row_keys(own)
    assert len(set(keys)) == len(own)
    assert row_keys(own.padded(90)) == keys
    junk = torch.where(own.mask | (own.mask.flip(1).cumsum(1).flip(1) > 0), own.data["token"], 7)
    assert row_keys(replace(own, data={"token": junk})) == keys, "what stands behind a row is not part of it"
    told = replace(own, context_id=own.context_id + 1, behaviour_log_prob=own.behaviour_log_prob - 1.0)
    assert row_keys(told) == keys
    assert not set(row_keys(replace(own, data={"token": own.data["token"] + 1}))) & set(keys)
    later = own.mask & (own.mask.cumsum(1) > 1)
    assert not set(row_keys(replace(own, mask=later))[:1]) & set(keys)


def test_what_will_not_be_asked_again_is_not_remembered(role: Whole, own: Trajectories) -> None:
    reference = Remembering(role, MANNER)
    assert torch.equal(reference.fresh(own), Remembering(role, MANNER).log_prob(own))
    assert not reference.known


def test_other_weights_are_another_memory() -> None:
    _, policy, reward = adapters()
    own = said_by(policy)
    reference = LanguagePolicy(policy, MANNER, short("dpo").policy_descent, domain().config.improve).frozen()
    before = reference.log_prob(own)
    stir(policy, 4)
    assert torch.equal(reference.log_prob(own), before)
    reference.load_state_dict({"weights": reward.weights()})
    assert not reference.known
    after = reference.log_prob(own)
    assert not torch.allclose(after, before, atol=1e-2)
    with torch.no_grad():
        torch.testing.assert_close(after, Speech(reward, MANNER).log_prob(own), atol=1e-5, rtol=0.0)


def test_a_full_memory_is_emptied_and_says_the_same(
    role: Whole, own: Trajectories, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(references, "REMEMBERED", 7)
    reference, expected = Remembering(role, MANNER), plainly(role, own)
    for some in (slice(0, 4), slice(2, 6), slice(4, 9), slice(0, 12)):
        torch.testing.assert_close(reference.log_prob(own[some]), expected[some], atol=1e-5, rtol=0.0)
        assert len(reference.known) <= max(7, len(own[some]))


# On disk


def test_what_was_said_of_data_is_kept_on_disk(
    role: Whole, own: Trajectories, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_rng_state()
    first, again = Remembering(role, MANNER), Remembering(role, MANNER)
    first.remember([own[:5], own[5:]], tmp_path / "kept", "one")
    (file,) = (tmp_path / "kept").iterdir()
    with counted(speech, "log_prob", monkeypatch) as calls:
        again.remember([own[:5], own[5:]], tmp_path / "kept", "one")
        assert torch.equal(again.log_prob(own), first.log_prob(own))
        assert not calls
    assert list((tmp_path / "kept").iterdir()) == [file]
    assert torch.equal(torch.get_rng_state(), before)


def test_another_model_and_other_data_have_files_of_their_own(role: Whole, own: Trajectories, tmp_path: Path) -> None:
    other = Whole(model_of("llama", base_seed=1))
    for model, name in ((role, "one"), (other, "two")):
        Remembering(model, MANNER).remember([own], tmp_path, name)
    assert len(list(tmp_path.iterdir())) == 2
    for model, name in ((role, "one"), (other, "two")):
        reference = Remembering(model, MANNER)
        reference.remember([own], tmp_path, name)
        torch.testing.assert_close(reference.log_prob(own), plainly(model, own), atol=1e-5, rtol=0.0)
    Remembering(role, MANNER).remember([own[:11]], tmp_path, "one")
    assert len(list(tmp_path.iterdir())) == 3


def damage(file: Path, how: str) -> None:
    whole = file.read_bytes()
    if how == "a folder":
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes({"cut short": whole[:-9], "empty": b"", "no header": whole[:4], "junk": b"junk" * 99}[how])


@pytest.mark.parametrize("how", ["cut short", "empty", "no header", "junk", "a folder", "other tensors", "other rows"])
def test_a_damaged_file_is_not_believed(role: Whole, own: Trajectories, tmp_path: Path, how: str) -> None:
    from safetensors.torch import load_file, save_file

    Remembering(role, MANNER).remember([own], tmp_path, "one")
    (file,) = tmp_path.iterdir()
    if how == "other tensors":
        save_file({"log_prob": torch.zeros(3)}, file)
    elif how == "other rows":
        save_file({"lengths": torch.tensor([2, 1]), "log_prob": torch.zeros(3)}, file)
    else:
        damage(file, how)
    reference = Remembering(role, MANNER)
    reference.remember([own], tmp_path, "one")
    torch.testing.assert_close(reference.log_prob(own), plainly(role, own), atol=1e-5, rtol=0.0)
    assert list(tmp_path.iterdir()) == [file], "nothing half-written is left"
    if how != "a folder":
        assert len(load_file(file)["lengths"]) == len(own), "written anew"


def test_more_data_than_it_remembers_are_kept_all_the_same(
    role: Whole, own: Trajectories, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(references, "REMEMBERED", 5)
    for _ in range(2):
        reference = Remembering(role, MANNER)
        reference.remember([own[:4], own[4:8], own[8:]], tmp_path, "one")
        torch.testing.assert_close(reference.log_prob(own), plainly(role, own), atol=1e-5, rtol=0.0)


def test_where_nothing_can_be_kept_it_is_computed_each_time(role: Whole, own: Trajectories, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    reference = Remembering(role, MANNER)
    reference.remember([own], tmp_path / "file", "one")
    assert len(reference.known) == len(own)


def test_a_domain_remembers_its_data_where_the_reward_is_implicit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """12 demonstrations and both sides of 12 comparisons; a second domain reads them from disk."""
    for rank in (0, 2):
        for run in range(2):
            world = domain(cache=str(tmp_path), model=replace(TINY, lora=LoRAConfig(rank=rank)))
            demonstrations, preferences = world.demonstrations, world.preferences
            assert demonstrations is not None
            assert preferences is not None
            with counted(speech, "log_prob", monkeypatch) as calls:
                parts = world.build(short("self-play-aihf"))
                for some in (demonstrations.trajectories, preferences.first, preferences.second):
                    parts.reference.log_prob(some)
            assert bool(calls) == (run == rank == 0)
    assert len(list((tmp_path / "log-probabilities").iterdir())) == 1


def test_numbers_of_another_precision_are_not_taken_for_its_own(tmp_path: Path) -> None:
    """Products in bfloat16 are other numbers of the same weights."""
    said = []
    for dtype in ("bfloat16", "float32", "bfloat16"):
        people = SpeechConfig(num_demonstrations=12, num_preferences=12, compared="task")  # the same for both
        world = domain(cache=str(tmp_path), model=replace(TINY, dtype=dtype), people=people)
        assert world.demonstrations is not None
        said.append(world.build(short("dpo")).reference.log_prob(world.demonstrations.trajectories))
        said.append(world.build(short("direct-aihf")).reference.log_prob(world.demonstrations.trajectories))
    assert float((said[1] - said[3]).abs().max()) > 1e-4
    torch.testing.assert_close(said[3], said[2], atol=1e-5, rtol=0.0)
    assert torch.equal(said[1], said[5])


@pytest.mark.parametrize("num_tokens", [1, 40, 100, 10_000])
def test_passes_hold_every_row_once_and_no_more_tokens_than_they_may(own: Trajectories, num_tokens: int) -> None:
    """Padded to the longest of their rows, of like length; a row that is too long for any pass has one of its own."""
    length = lengths(own)
    parts = list(passes(own, num_tokens))
    assert sorted(torch.cat(parts).tolist()) == list(range(len(own)))
    assert torch.equal(torch.cat([length[part] for part in parts]), length.sort()[0])
    for part in parts:
        assert len(part) == 1 or len(part) * int(length[part].max()) <= num_tokens
    for part, after in itertools.pairwise(parts):
        assert (len(part) + 1) * int(length[after[0]]) > num_tokens, "there was room for one more"
