"""The paged engine: transformers' continuous batching behind the native sampler's signature.

Prompts share one cache of pages, and where a completion ends the next one begins at once. All completions of a call
are drawn from one random stream: the same call says the same again, but a completion depends on the batch that it is
sampled in and on the device, unlike the native sampler's.

Shape legend: B completions, P columns of prompts, M new tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import ContinuousBatchingConfig, GenerationConfig, PreTrainedModel
from transformers.generation.continuous_batching import ContinuousBatchingManager
from transformers.generation.continuous_batching.requests import GenerationOutput

from llm.models import must_fit
from llm.roles import Role
from llm.sampler import Completions
from unified_irl.errors import UserError

PAGE = 16
"""Tokens of a page of the cache."""
TOKENS_PER_PASS = 1024
"""Tokens of a pass, unless more completions than that take part in it; longer prompts are read in pieces."""


@torch.no_grad()
def complete(
    role: Role,
    prompt_BP: Tensor,
    length_B: Tensor,
    *,
    seed_B: Tensor | None,
    max_tokens: int,
    end: int,
    rows: int = 256,
) -> Completions:
    """One completion of each prompt (tokens from the first column on); without seeds, the likeliest token each time."""
    must_fit(role.model, int(length_B.max()), max_tokens)
    prompts = [row[:length].tolist() for row, length in zip(prompt_BP, length_B.tolist(), strict=True)]
    generation = GenerationConfig(do_sample=seed_B is not None, max_new_tokens=max_tokens, eos_token_id=end)
    with role.active(), _left_as_found(role.model):
        outputs = _worked_off(role.model, prompts, generation, _batching(length_B, seed_B, max_tokens, rows))

    said = Completions.silent(len(prompts), max_tokens)
    for row, output in enumerate(outputs):
        said.length_B[row] = number = len(output.generated_tokens)
        said.token_BM[row, :number] = torch.tensor(output.generated_tokens)
        said.log_prob_BM[row, :number] = torch.tensor(output.logprobs)
    return said.over(end)


def _batching(length_B: Tensor, seed_B: Tensor | None, max_tokens: int, rows: int) -> ContinuousBatchingConfig:
    """Room for the longest `rows` completions and no more; without limits, the engine takes most of the memory."""
    at_a_time = min(rows, len(length_B))
    page_B = (length_B + max_tokens + PAGE - 1) // PAGE
    return ContinuousBatchingConfig(
        page_size=PAGE,
        num_blocks=int(page_B.topk(at_a_time).values.sum()),
        max_requests_per_batch=at_a_time,
        max_batch_tokens=max(at_a_time, min(TOKENS_PER_PASS, int(length_B.sum()))),
        safety_margin=0.0,  # there is room for all that take part
        max_blocks_per_request=0,
        allow_block_sharing=False,
        use_cuda_graph=False,
        use_async_batching=False,
        auto_switch_to_flash=False,  # whose sums differ from those of training
        return_logprobs=True,
        seed=0 if seed_B is None else int(seed_B.sum()) % 2**62,
    )


def _worked_off(
    model: PreTrainedModel, prompts: list[list[int]], generation: GenerationConfig, batching: ContinuousBatchingConfig
) -> list[GenerationOutput]:
    """What the engine said to each prompt, or a sentence on why it did not.

    All prompts are there before the engine's thread starts, or who shares a batch with whom would be left to chance.
    """
    outputs: dict[str, GenerationOutput] = {}
    manager: ContinuousBatchingManager | None = None
    try:
        manager = model.init_continuous_batching(generation, batching)
        manager.warmup()  # lays out the cache
        for row, prompt in enumerate(prompts):
            manager.add_request(prompt, request_id=str(row))
        manager.start()
        while len(outputs) < len(prompts):
            output = manager.get_result(timeout=1.0)
            if output is not None:
                outputs[output.request_id] = output
            elif not manager.is_running():
                break
    except (MemoryError, RuntimeError, ValueError) as error:
        raise _failed(str(error)) from error
    finally:
        if manager is not None and manager.is_running():
            manager.stop(hard_stop=True)
    for row in range(len(prompts)):
        output = outputs.get(str(row))
        if output is None or output.error is not None or not output.generated_tokens:
            raise _failed("a prompt got no answer" if output is None else output.error or "an answer was empty")
    return [outputs[str(row)] for row in range(len(prompts))]


def _failed(why: str) -> UserError:
    why = " ".join(why.split())
    return UserError(f"The paged engine failed ({why}); let sampler.rows be smaller, or take sampler.engine native.")


@contextmanager
def _left_as_found(model: PreTrainedModel) -> Iterator[None]:
    """The engine sets the model's mode and attention, and seeds all random numbers there are; this puts them back.

    What it would log of failures is held back meanwhile, since they are raised.
    """
    learning = [module for module in model.modules() if module.training]
    attention = model.config._attn_implementation
    devices = range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)
    log = logging.getLogger("ContinuousBatchingLogger")
    level = log.level
    with torch.random.fork_rng(devices=devices):
        try:
            log.setLevel(logging.CRITICAL)
            yield
        finally:
            log.setLevel(level)
            if model.config._attn_implementation != attention:
                model.set_attn_implementation(attention)
            for module in learning:
                module.training = True
