"""The paged engine leaves the model as it found it, says why it failed, and serves a domain."""

from __future__ import annotations

import logging.handlers
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from speakers import model_of, same, sampled, says, speech
from torch import Tensor
from transformers import PreTrainedModel
from transformers.generation.continuous_batching import cache, continuous_api

from envs.language.walks_text import WalksText
from envs.language.walks_text_config import WalksTextConfig
from llm import paged, sampler
from llm.config import LoRAConfig, ModelConfig, PeopledConfig, SamplerConfig, SpeechConfig
from llm.domain import LanguageDomain
from llm.roles import Adapter, Base, Shared, Whole
from unified_irl.conformance import check_domain
from unified_irl.errors import UserError
from unified_irl.methods import METHODS


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_goes_on_as_if_nothing_had_been_said(attention: str, checkpointing: bool) -> None:
    plain, model = model_of("gpt-neox"), model_of("gpt-neox", gradient_checkpointing=checkpointing)
    expected, drawn = says(sampler, Whole(plain)), sampled(Whole(plain))
    model.set_attn_implementation(attention)
    role = Whole(model)
    modes, flags = [one.training for one in model.modules()], [one.requires_grad for one in model.parameters()]
    gradients: list[list[Tensor]] = []
    for _ in range(2):
        gradients.append(list(torch.autograd.grad(speech(role).log_prob(drawn).sum(), role.parameters())))
        assert same(says(paged, role), expected)
        assert model.config._attn_implementation == attention
        assert [one.training for one in model.modules()] == modes
        assert [one.requires_grad for one in model.parameters()] == flags
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_adapters_speak_each_for_themselves_while_a_gradient_is_on_its_way() -> None:
    shared = Shared(model_of("llama"), LoRAConfig(rank=4), 0)
    policy, reward, base = Adapter(shared, "policy"), Adapter(shared, "reward"), Base(shared)
    with torch.no_grad():
        for one in (policy, reward):
            for value in one.parameters():
                value.normal_(std=0.3)
    drawn = sampled(policy)
    loss = -speech(policy).log_prob(drawn).sum()
    torch.testing.assert_close(-loss.detach(), drawn.behaviour_log_prob.sum())
    greedy = {name: says(paged, role) for name, role in (("policy", policy), ("base", base), ("still", reward.still()))}
    for name, role in (("policy", policy), ("base", base), ("still", reward)):
        assert same(greedy[name], says(sampler, role))
    assert not same(greedy["policy"], greedy["base"])
    assert not same(greedy["policy"], greedy["still"])
    loss.backward()
    assert all(value.requires_grad and value.grad is not None for value in policy.parameters())


class Broken:
    """A forward pass that fails after a while."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.left, self.whole = 3, model.forward

    def __call__(self, *some: Any, **more: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("the sums\ndo not add up")
        return self.whole(*some, **more)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_the_engine_only_logs_becomes_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    log = logging.getLogger("ContinuousBatchingLogger")
    level, logged = log.level, logging.handlers.BufferingHandler(10)
    monkeypatch.setattr(log, "handlers", [logged])
    model = model_of("llama").train()
    model.set_attn_implementation("eager")  # which the engine exchanges for one of its own
    expected, threads = says(paged, Whole(model)), threading.active_count()
    with monkeypatch.context() as patch:
        patch.setattr(model, "forward", Broken(model))
        with pytest.raises(UserError, match=r"paged engine failed \(the sums do not add up\); let sampler\.rows"):
            says(paged, Whole(model))
    with monkeypatch.context() as patch:
        patch.setattr(continuous_api.OutputRouter, "deliver_batch", lambda *_: sys.exit())  # ends the engine's thread
        with pytest.raises(UserError, match="a prompt got no answer"):
            says(paged, Whole(model))
    with monkeypatch.context() as patch:
        patch.setattr(cache, "get_device_and_memory_breakdown", lambda: (model.device, 1000, 0, 0))
        with pytest.raises(UserError, match="Memory footprint"):
            says(paged, Whole(model))
    with monkeypatch.context() as patch:
        patch.setattr(model.config, "_attn_implementation_internal", "flex_attention")
        with pytest.raises(UserError, match="flex_attention is not supported"):
            says(paged, Whole(model))
    with pytest.raises(UserError, match="A prompt of 30 tokens with 35 to come does not fit"):
        says(paged, Whole(model), max_tokens=35)
    assert threading.active_count() == threads
    assert all(module.training for module in model.modules())
    assert model.config._attn_implementation == "eager"
    assert same(says(paged, Whole(model)), expected)
    assert log.level == level
    assert not logged.buffer


def domain_of(engine: str, folder: Path) -> LanguageDomain:
    config = PeopledConfig(
        model=ModelConfig(layers=1, width=16, heads=2, documents=64, passes=1, size="seconds"),
        people=SpeechConfig(num_demonstrations=8, num_preferences=8), sampler=SamplerConfig(engine=engine, rows=8),
        num_examined=4, num_fresh=8, cache=str(folder), device="cpu",
    )  # fmt: skip
    return LanguageDomain(config, 0, WalksText(WalksTextConfig(num_nodes=4, num_neighbours=2, horizon=4), 0))


def test_a_domain_takes_it(tmp_path: Path) -> None:
    parts = {engine: domain_of(engine, tmp_path).build(METHODS["aihf"]) for engine in ("paged", "native")}
    domain = domain_of("paged", tmp_path)
    policy = parts["paged"].policy
    drawn = policy.sample(domain.contexts, torch.Generator().manual_seed(0))
    torch.testing.assert_close(policy.log_prob(drawn), drawn.behaviour_log_prob, atol=1e-4, rtol=0.0)
    greedy = [one.policy.greedy(domain.contexts).data["token"] for one in parts.values()]
    assert torch.equal(*greedy)


@pytest.mark.slow
def test_a_domain_that_takes_it_keeps_every_promise(tmp_path: Path) -> None:
    check_domain(domain_of("paged", tmp_path), [METHODS["aihf"]])
