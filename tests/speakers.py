"""Tiny models, prompts of many lengths, and what the two engines say to them."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from llm import paged, sampler
from llm.config import ModelConfig
from llm.models import small_model
from llm.roles import Role
from llm.sizes import Shape
from llm.speech import Manner, Speech
from unified_irl.trajectories import Contexts, Trajectories

torch.set_num_threads(1)

VOCABULARY, CONTEXT, END = 64, 64, 2
LENGTH = torch.tensor([1, 2, 5, 5, 5, 5, 11, 16, 17, 30, 3, 30])
COPY_OF = torch.tensor([0, 1, 2, 2, 2, 5, 6, 7, 8, 9, 10, 9])
"""Rows 2 to 4 hold one prompt, and so do rows 9 and 11."""
PROMPT = torch.randint(3, VOCABULARY, (12, 30), generator=torch.Generator().manual_seed(1))[COPY_OF]
PROMPT *= torch.arange(30) < LENGTH[:, None]
CONTEXTS = Contexts(ids=torch.arange(12), data={"token": PROMPT, "length": LENGTH})


def model_of(kind: str, **more: Any) -> PreTrainedModel:
    """A tiny model with opinions."""
    if kind == "grouped":
        config = LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            intermediate_size=64, max_position_embeddings=CONTEXT,
        )  # fmt: skip
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    else:
        shape = Shape(layers=2, width=32, heads=4, documents=1, passes=1)
        model = small_model(ModelConfig(family=kind, **more), shape, VOCABULARY, CONTEXT)  # type: ignore[arg-type]
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(10.0)
    return model


def says(engine: Any, role: Role, seed: int | None = None, **more: Any) -> sampler.Completions:
    seeds = None if seed is None else sampler.seeds(len(LENGTH), torch.Generator().manual_seed(seed))
    return engine.complete(role, PROMPT, LENGTH, seed_B=seeds, **{"max_tokens": 20, "end": END} | more)


def speech(role: Role) -> Speech:
    return Speech(role, Manner(end=END, max_tokens=20, rows=5, tokens_per_pass=256, complete=paged.complete))


def sampled(role: Role) -> Trajectories:
    return speech(role).sample(CONTEXTS, torch.Generator().manual_seed(3))


def same(one: sampler.Completions, other: sampler.Completions) -> bool:
    return all(torch.equal(a, b) for a, b in ((one.token_BM, other.token_BM), (one.length_B, other.length_B)))
