"""Models of which each of two processes keeps a share: they say, learn and keep what whole ones do."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from commands import ended, launched
from language import MANNER, gentle, said_by
from speakers import CONTEXTS, model_of
from torch import Tensor
from transformers import PreTrainedModel

from llm.config import ImproveConfig, ModelConfig, RewardConfig
from llm.policy import LanguagePolicy
from llm.references import Remembering
from llm.reward import TextReward
from llm.roles import Role, Whole
from llm.sharded import Sharded
from llm.speech import Speech
from unified_irl import checkpoint, parallel
from unified_irl.batch import Batch, Normaliser
from unified_irl.errors import UserError

torch.set_num_threads(1)
pytestmark = pytest.mark.slow  # test_parallel has what is tried each time
FAMILIES = pytest.mark.parametrize("family", ["llama", "gpt-neox"])


def in_two(work: Callable[[str, Path], None], family: str) -> None:
    """The work, done by two processes that share it; what fails in one of them fails here."""
    with tempfile.TemporaryDirectory() as folder:
        for code, _, complaint in ended(launched(2, [__file__, work.__name__, family, folder])):
            assert code == 0, complaint


def learning(family: str, **more: object) -> PreTrainedModel:
    return model_of(family, **more).requires_grad_(True)


def close(one: Tensor, other: Tensor, by: float = 1e-5) -> None:
    torch.testing.assert_close(one, other, atol=by, rtol=by)


@FAMILIES
def test_they_say_what_a_whole_one_does(family: str) -> None:
    in_two(_speaks, family)


def _speaks(family: str, _: Path) -> None:
    plain, shared = Whole(model_of(family)), Sharded(model_of(family), "cpu")
    here = sum(one.to_local().numel() for one in shared.parameters())  # type: ignore[operator]
    assert here <= 0.52 * sum(one.numel() for one in plain.parameters())
    own = said_by(shared)
    assert torch.equal(own.data["token"], said_by(plain).data["token"])
    for ask in (lambda role: Speech(role, MANNER), lambda role: Remembering(role, MANNER)):
        close(ask(shared).log_prob(own), ask(plain).log_prob(own))
    one = CONTEXTS[:1]  # of which only one of the two says something
    assert torch.equal(*(Speech(role, MANNER).greedy(one).data["token"] for role in (shared, plain)))


def pulled(
    policy: LanguagePolicy, reference: Remembering
) -> Callable[[Batch, Normaliser], tuple[Tensor, dict[str, Tensor]]]:
    """A loss that looks at two behaviours of the policy and at what a reference says."""

    def loss(batch: Batch, normaliser: Normaliser) -> tuple[Tensor, dict[str, Tensor]]:
        shown, own = batch.demonstrations, batch.own
        assert shown is not None
        assert own is not None
        assert normaliser.own is not None
        gap_B = (policy.log_prob(shown) - policy.log_prob(own) + reference.log_prob(own).to(torch.float32)).sum(1)
        value = (own.weight * gap_B.tanh()).sum() / normaliser.own
        return value, {"gap": (own.weight * gap_B.detach()).sum()}

    return loss


@FAMILIES
def test_they_learn_what_a_whole_one_does(family: str) -> None:
    """Also from pieces of which one process would have more, with references on the way, and from a checkpoint on."""
    in_two(_learns, family)


def _learns(family: str, folder: Path, **more: object) -> None:
    own = said_by(Whole(model_of(family)))
    batch = Batch(demonstrations=own[torch.arange(7)], own=own[torch.arange(5, 12)])
    descent = replace(gentle(), max_grad_norm=0.5, micro_batch_size=2, learning_rate=1e-3)

    def taught(role: Role, steps: int, path: Path | None = None) -> tuple[LanguagePolicy, list[float]]:
        policy = LanguagePolicy(role, MANNER, descent, ImproveConfig())
        if path is not None:
            policy.load_state_dict(checkpoint.load(path))
        loss = pulled(policy, policy.frozen())
        return policy, [float(policy.descend(loss, batch, batch.normaliser())["loss"]) for _ in range(steps)]

    (plain, expected), (shared, found) = (
        taught(Whole(learning(family, **more)), 3),
        taught(Sharded(learning(family, **more), "cpu"), 3),
    )
    assert found == pytest.approx(expected, abs=1e-5)
    close(shared.log_prob(own).detach(), plain.log_prob(own).detach(), 1e-4)
    state = shared.state_dict()
    for name, value in plain.state_dict()["weights"].items():
        close(state["weights"][name], value, 1e-4)
    if parallel.world().is_first:
        checkpoint.save(folder, state, 1)
    parallel.gather(None)
    path = folder / "round-00000001"
    (alone, one), (again, two) = (
        taught(role, 2, path) for role in (Whole(learning(family, **more)), Sharded(learning(family, **more), "cpu"))
    )
    assert two == pytest.approx(one, abs=1e-5)
    close(again.log_prob(own).detach(), alone.log_prob(own).detach(), 1e-4)


def test_they_learn_with_activations_computed_twice() -> None:
    in_two(_learns_checkpointed, "llama")


def _learns_checkpointed(family: str, folder: Path) -> None:
    _learns(family, folder, gradient_checkpointing=True)


@FAMILIES
def test_what_is_frozen_stays(family: str) -> None:
    in_two(_stays, family)


def _stays(family: str, _: Path) -> None:
    role = Sharded(learning(family), "cpu")
    own = said_by(role)
    still = Remembering(role.still(), MANNER)
    before = still.fresh(own)
    close(before, Speech(role, MANNER).log_prob(own).detach())
    with torch.no_grad():
        for value in role.parameters():
            value.mul_(1.5)
    assert not torch.allclose(Speech(role, MANNER).log_prob(own), before, atol=1e-2)
    assert torch.equal(still.fresh(own), before)


@pytest.mark.parametrize("train", ["all", "head"])
def test_a_reward_learns(train: str) -> None:
    in_two(_rewards_all if train == "all" else _rewards_head, "llama")


def _rewards_all(family: str, _: Path) -> None:
    _rewards(family, RewardConfig(train="all"))


def _rewards_head(family: str, _: Path) -> None:
    _rewards(family, RewardConfig(train="head", level="sequence"))


def _rewards(family: str, config: RewardConfig) -> None:
    own = said_by(Whole(model_of(family)))
    batch = Batch(own=own)

    def taught(role: Role) -> tuple[TextReward, Tensor]:
        reward = TextReward(role, config, replace(gentle(), micro_batch_size=5, learning_rate=1e-3), 128)

        def loss(piece: Batch, _: Normaliser) -> tuple[Tensor, dict[str, Tensor]]:
            assert piece.own is not None
            value = (piece.own.weight * torch.nn.functional.softplus(-reward(piece.own).sum(1))).sum()
            return value, {}

        losses = [reward.descend(loss, batch, batch.normaliser())["loss"] for _ in range(4)]
        assert losses[-1] < losses[0]
        with torch.no_grad():
            return reward, reward(own)

    (plain, expected), (shared, found) = taught(Whole(learning(family))), taught(Sharded(learning(family), "cpu"))
    close(found, expected, 1e-4)
    state = shared.state_dict()
    for name, value in plain.state_dict()["head"].items():
        close(state["head"][name], value, 1e-4)
    shared.load_state_dict(plain.state_dict())
    with torch.no_grad():
        close(shared(own), expected)


def test_half_precision_is_gathered_as_such() -> None:
    in_two(_halves, "llama")


def _halves(family: str, _: Path) -> None:
    role, plain = Sharded(model_of(family, dtype="bfloat16"), "cpu"), Whole(model_of(family))
    own = said_by(plain)
    with torch.no_grad(), role.active():
        assert {one.dtype for one in role.model.parameters()} == {torch.bfloat16}
    assert {one.dtype for one in role.parameters()} == {torch.float32}
    said, exact = (Speech(one, MANNER).log_prob(own) for one in (role, plain))
    assert float((said - exact).abs().max()) < 0.5
    taught = [LanguagePolicy(one, MANNER, replace(gentle(), learning_rate=1e-2), ImproveConfig()) for one in
              (Sharded(learning(family, dtype="bfloat16"), "cpu"), Whole(learning(family)))]  # fmt: skip
    batch = Batch(own=own)
    for policy in taught:

        def loss(
            piece: Batch, normaliser: Normaliser, policy: LanguagePolicy = policy
        ) -> tuple[Tensor, dict[str, Tensor]]:
            assert piece.own is not None
            return -(piece.own.weight * policy.log_prob(piece.own).sum(1)).sum() / normaliser.own, {}

        losses = [float(policy.descend(loss, batch, batch.normaliser())["loss"]) for _ in range(4)]
        assert losses[-1] < losses[0]
    half, full = (policy.role.weights() for policy in taught)
    for name, value in full.items():
        close(half[name], value, 0.02)


def test_adapters_are_not_shared_out() -> None:
    with pytest.raises(UserError, match=r"shard is for whole models, but lora\.rank asks for adapters"):
        ModelConfig(shard=True, lora=replace(ModelConfig().lora, rank=4))


if __name__ == "__main__":
    assert parallel.join().size == 2
    globals()[sys.argv[1]](sys.argv[2], Path(sys.argv[3]))
    parallel.leave()
