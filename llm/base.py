"""The base model of a task: taught the task's language on first use, and kept by the content of what it was taught."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from envs.language.task import LanguageTask
from llm.codec import Codec, word_tokenizer
from llm.config import ModelConfig
from llm.log_prob import token_log_prob
from llm.models import (
    UNREADABLE,
    check_head,
    in_one_line,
    load,
    multiplies_in_half,
    output_weight,
    prepared,
    quiet,
    small_model,
)
from llm.sampler import check_sampler
from llm.sizes import Shape, shape_of
from unified_irl import parallel
from unified_irl.errors import UserError
from unified_irl.feed import stream

VERSION = 1
"""Goes up when the teaching below changes."""
ROOM = 64
"""Contexts are multiples of this."""


def cache_folder(given: str) -> Path:
    """Where base models and log-probabilities are kept."""
    return Path(given or os.environ.get("UNIFIED_IRL_CACHE") or Path.home() / ".cache" / "unified-irl")


def base_model(
    config: ModelConfig, task: LanguageTask, cache: Path, device: str = "cpu"
) -> tuple[PreTrainedModel, Codec]:
    """The model and its codec. One that has to be taught first is taught on the device."""
    if config.path:
        model, tokenizer = load(config)
        where = config.path
    else:
        folder = parallel.first_goes(lambda: taught(config, task, cache, device))
        try:
            with quiet():
                model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, attn_implementation="sdpa")
            tokenizer = AutoTokenizer.from_pretrained(folder)
        except UNREADABLE as error:
            raise UserError(
                f"The base model in {folder} is damaged ({in_one_line(error)}); delete that folder, and it is taught "
                "anew."
            ) from error
        model, where = prepared(model, config), str(folder)
    check_head(model, where)
    check_sampler(model, where)
    return model, Codec(tokenizer)


def content_of(model: PreTrainedModel) -> str:
    """A name for these very weights, multiplied as precisely."""
    digest = hashlib.sha256(b"half" if multiplies_in_half(model) else b"")
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(parallel.whole(value.detach()).cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def taught(config: ModelConfig, task: LanguageTask, cache: Path, device: str = "cpu") -> Path:
    """The folder of the small model that has read the task's corpus."""
    shape = shape_of(config)
    documents = task.corpus(shape.documents, stream(config.base_seed, "corpus", task.name))
    tokenizer = word_tokenizer(task.words)
    codec = Codec(tokenizer)
    rows = [[codec.begin, *codec.ids(text), codec.end] for text in documents]
    longest = max(len(codec.prompt(text)) for text in task.prompts) + task.max_words + 1
    context = -(-max(longest, *map(len, rows)) // ROOM) * ROOM
    facts = {"version": VERSION, "task": task.name, "shape": asdict(shape), "family": config.family,
             "context": context, "seed": config.base_seed, "words": task.words}  # fmt: skip
    digest = hashlib.sha256(json.dumps(facts).encode())
    digest.update("\n".join(documents).encode())
    folder = cache / "bases" / f"{task.name}-{digest.hexdigest()[:20]}"
    if (folder / "model.safetensors").is_file():
        return folder
    plain = ModelConfig(family=config.family, base_seed=config.base_seed)
    model, began = small_model(plain, shape, len(tokenizer), context).to(device), time.monotonic()
    teach(model, rows, shape, config.base_seed, f"teaching {task.name}'s language to a model of its own")
    told = {"documents": len(documents), "seconds": round(time.monotonic() - began, 1)}
    try:
        partial = folder.with_name(f".{folder.name}.{os.getpid()}")
        with quiet():
            model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        (partial / "taught.json").write_text(json.dumps(facts | told, indent=1))
        if not folder.exists():
            partial.rename(folder)
    except OSError as error:
        if not (folder / "model.safetensors").is_file():  # another run may have been faster
            raise UserError(
                f"The base model cannot be kept in {folder}: {error.strerror or error}; free space, or set cache to a "
                "folder that can be written."
            ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def teach(model: PreTrainedModel, rows: list[list[int]], shape: Shape, seed: int, what: str) -> float:
    """Next-token prediction on whole documents; the mean loss of the last steps."""
    draw = stream(seed, "teaching")
    optimiser = torch.optim.AdamW(model.parameters(), lr=shape.learning_rate, weight_decay=0.01, fused=True)
    num_steps = max(1, shape.passes * len(rows) // shape.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, shape.learning_rate, total_steps=num_steps + 1)
    token_ND, length_N = _table(rows)
    order = torch.cat([torch.randperm(len(rows), generator=draw) for _ in range(shape.passes + 1)])
    recent, told = 0.0, time.monotonic()
    for step in range(num_steps):
        some = order[step * shape.batch : (step + 1) * shape.batch]
        loss = document_loss(model, token_ND[some], length_N[some])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        value = loss.item()
        recent = value if step == 0 else 0.95 * recent + 0.05 * value
        if time.monotonic() - told > 5.0:
            told = time.monotonic()
            print(f"{what}: step {step + 1}/{num_steps}, loss {recent:.3f}", file=sys.stderr, flush=True)
    return recent


def document_loss(model: PreTrainedModel, token_BT: Tensor, length_B: Tensor) -> Tensor:
    """−log π of every token but the first, a mean over tokens."""
    longest = int(length_B.max())
    token_BT = token_BT[:, :longest].to(model.device)
    real_BT = torch.arange(1, longest, device=token_BT.device) < length_B.to(token_BT.device)[:, None]
    hidden = model.base_model(token_BT[:, :-1], use_cache=False).last_hidden_state
    return -token_log_prob(hidden[real_BT], output_weight(model), token_BT[:, 1:][real_BT]).mean()


def _table(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    length = torch.tensor([len(row) for row in rows])
    token = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    return token, length
