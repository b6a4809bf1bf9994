"""Completions of prompts, several of each: by our sampler, and by `generate` of transformers with the caches it has."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from serving import options, serve
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from llm.config import ModelConfig
from llm.models import prepared
from llm.roles import Whole
from llm.sampler import complete, seeds


def native(model: PreTrainedModel, prompts: list[Tensor], told: dict[str, Any]) -> Callable[[], int]:
    role, draw = Whole(model), torch.Generator().manual_seed(0)
    which = torch.arange(len(prompts)).repeat_interleave(told["samples"])
    prompt = torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True)[which]
    length = torch.tensor([len(one) for one in prompts])[which]

    def advance() -> int:
        seed = seeds(len(prompt), draw)
        said = complete(role, prompt, length, seed_B=seed, max_tokens=told["max_tokens"], end=told["end"])
        return int(said.length_B.sum())

    return advance


def generate(model: PreTrainedModel, prompts: list[Tensor], told: dict[str, Any], cache: str) -> Callable[[], int]:
    """The length of a completion reaches to its first end, that one included."""
    asked = torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True, padding_side="left")
    width = asked.shape[1]
    real = (torch.arange(width) >= width - torch.tensor([len(one) for one in prompts])[:, None]).long()
    torch.manual_seed(0)

    def advance() -> int:
        said = model.generate(
            asked, attention_mask=real, do_sample=True, top_k=0, temperature=1.0, max_new_tokens=told["max_tokens"],
            num_return_sequences=told["samples"], eos_token_id=told["end"], pad_token_id=0, cache_implementation=cache,
        )[:, width:]  # fmt: skip
        is_end = said == told["end"]
        return int((is_end.cumsum(1) - is_end.long() == 0).sum())

    return advance


def main() -> None:
    torch.set_num_threads(1)
    told = options()
    model = prepared(AutoModelForCausalLM.from_pretrained(told["model"], attn_implementation="sdpa"), ModelConfig())
    prompts = [torch.tensor(one) for one in json.loads(Path(told["prompts"]).read_text())]
    advance = (
        native(model, prompts, told) if told["which"] == "native" else generate(model, prompts, told, told["which"])
    )
    num_tokens = advance()
    serve(
        advance, {"transformers": transformers.__version__, "mean_length": num_tokens / len(prompts) / told["samples"]}
    )


if __name__ == "__main__":
    main()
