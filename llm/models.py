"""Language models: small ones made from a config, and any causal one of transformers from a folder or the hub.

Loading believes nothing: weights are read from safetensors alone, and code beside them is never run unless asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
)
from transformers.utils import logging

from llm.config import ModelConfig
from llm.sizes import Shape
from unified_irl.errors import UserError
from unified_irl.feed import stream

UNREADABLE = (
    OSError, ValueError, KeyError, ImportError, RuntimeError, TypeError, SafetensorError, StrictDataclassError,
)  # fmt: skip
"""What reading a damaged model may raise."""
TOLERANCE = 1e-3
"""How far a model's own logits may be from the plain product of hidden states and output embeddings."""


def small_model(config: ModelConfig, shape: Shape, vocabulary: int, context: int) -> PreTrainedModel:
    """A model of the family with seeded weights; padding, begin and end are the tokens 0, 1 and 2."""
    common: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": 4 * shape.width,
        "max_position_embeddings": context,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
    }
    families: dict[str, tuple[type[PreTrainedConfig], dict[str, Any]]] = {
        "gpt-neox": (GPTNeoXConfig, {}),
        "llama": (LlamaConfig, {"num_key_value_heads": shape.heads}),
        "mistral": (MistralConfig, {"num_key_value_heads": shape.heads, "sliding_window": None}),
        "qwen": (Qwen2Config, {"num_key_value_heads": shape.heads}),
    }
    kind, more = families[config.family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(config.base_seed, "weights").initial_seed() % 2**63)
        return prepared(AutoModelForCausalLM.from_config(kind(**common, **more), attn_implementation="sdpa"), config)


def load(config: ModelConfig) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """The model and tokenizer at `config.path`."""
    options: dict[str, Any] = {
        "local_files_only": not config.allow_download,
        "trust_remote_code": config.trust_remote_code,
    }
    is_folder = look_at(config)
    try:
        kind = AutoConfig.from_pretrained(config.path, **options)
        with quiet():
            model, told = AutoModelForCausalLM.from_pretrained(
                config.path, config=kind, use_safetensors=True, dtype=_kept_in(config), attn_implementation="sdpa",
                output_loading_info=True, **options,
            )  # fmt: skip
        tokenizer = AutoTokenizer.from_pretrained(config.path, **options)
    except UNREADABLE as error:
        if isinstance(error, OSError) and not is_folder and not config.allow_download:
            raise UserError(
                f"There is no model {config.path} on this machine, neither as a folder nor among those that were "
                "downloaded; set model.allow_download to ask the hub for it."
            ) from error
        raise UserError(f"The model at {config.path} cannot be loaded: {in_one_line(error)}") from error
    if told["missing_keys"]:  # which would be filled at random
        raise UserError(
            f"The weights at {config.path} lack {', '.join(sorted(told['missing_keys'])[:3])}, which the model has "
            "according to its config.json; restore a whole copy."
        )
    if len(tokenizer) > (known := len(model.get_input_embeddings().weight)):
        raise UserError(
            f"The tokenizer at {config.path} has {len(tokenizer)} tokens, but the model knows {known}; take the "
            "tokenizer that the model was trained with."
        )
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"The tokenizer at {config.path} has no end-of-text token, so a completion could never end; name one as "
            "eos_token in its tokenizer_config.json."
        )
    return prepared(model, config), tokenizer


def multiplying(model: PreTrainedModel) -> torch.autocast:
    """The precision of the model's products: bfloat16 where it was asked for, whatever its weights are kept in."""
    return torch.autocast(model.device.type, torch.bfloat16, enabled=multiplies_in_half(model))


def multiplies_in_half(model: PreTrainedModel) -> bool:
    return bool(getattr(model, "multiplies_in_half", False))


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars of transformers, which would appear for every small file."""
    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()


def look_at(config: ModelConfig) -> bool:
    """What can be said of a model before anything is read as one; whether it is a folder."""
    is_folder = os.path.isdir(config.path)
    if is_folder:
        _look_into(Path(config.path), config)
    elif config.path.startswith((".", "~", "/")) or config.path.count("/") > 1:
        raise UserError(f"There is no folder {config.path}; expected that of a model, or the name of one on the hub.")
    return is_folder


def _look_into(path: Path, config: ModelConfig) -> None:
    if not (path / "config.json").is_file():
        raise UserError(f"{path} holds no config.json; expected the folder of a model as transformers saves it.")
    weights = [one.name for one in path.iterdir() if one.suffix == ".safetensors"]
    pickles = [one.name for one in path.iterdir() if one.suffix in (".bin", ".pt", ".pth", ".pkl")]
    if not weights:
        what = f"only {pickles[0]}, a pickle, which can run code when it is read" if pickles else "no weights"
        raise UserError(f"{path} holds {what}; expected .safetensors (save the model anew with save_pretrained).")
    if (path / "adapter_config.json").is_file():
        raise UserError(
            f"{path} holds an adapter beside or instead of a whole model; merge the two (merge_and_unload of peft) and "
            "save the result."
        )
    index = path / "model.safetensors.index.json"
    if index.is_file():
        import json

        try:
            wanted = set(map(str, json.loads(index.read_text())["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{index} is damaged; restore it from where the model came from.") from error
        if missing := sorted(wanted - set(weights)):
            raise UserError(f"{path} lacks {', '.join(missing)}, which its index names; copy the whole folder.")
    described = [one.read_text(errors="replace") for one in path.glob("*config.json") if one.is_file()]
    if not config.trust_remote_code and any('"auto_map"' in text for text in described):
        raise UserError(
            f"{path} brings code of its own, which is not run unless asked for; read it, then set "
            "model.trust_remote_code."
        )


def _kept_in(config: ModelConfig) -> torch.dtype:
    """Precision of the weights: half where it was asked for and where they stay as they are."""
    return torch.bfloat16 if config.dtype == "bfloat16" and config.lora.rank else torch.float32


def prepared(model: PreTrainedModel, config: ModelConfig) -> PreTrainedModel:
    """Without dropout, whose noise would make a policy speak otherwise than it acts; checked for finite weights."""
    model.to(_kept_in(config))
    model.multiplies_in_half = config.dtype == "bfloat16"  # type: ignore[assignment]
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    for name, value in model.named_parameters():
        if not bool(value.isfinite().all()):
            raise UserError(f"The model's weights hold NaN or infinite numbers, first in {name}; restore a sound copy.")
    model.eval()
    if config.gradient_checkpointing:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        model.train()
    return model


def output_weight(model: PreTrainedModel) -> Tensor:
    """[V, D]: what hidden states are multiplied by."""
    head = model.get_output_embeddings()
    assert head is not None
    weight: Tensor = head.weight  # type: ignore[assignment]
    return weight


@torch.no_grad()
def check_head(model: PreTrainedModel, where: str) -> None:
    """Whether logits are the plain product that log-probabilities are computed by here."""
    head = model.get_output_embeddings()
    is_plain = isinstance(head, nn.Linear) and head.bias is None
    if is_plain:
        tokens = torch.arange(1, 5, device=model.device)[None] % model.config.vocab_size
        hidden = model.base_model(tokens, use_cache=False).last_hidden_state
        own = model(tokens, use_cache=False).logits.float()
        is_plain = bool(((own - (hidden @ output_weight(model).T).float()).abs() <= TOLERANCE * (1 + own.abs())).all())
    if not is_plain:
        raise UserError(
            f"The logits of {where} are not the plain product of its hidden states and output embeddings (a bias, a "
            "scale or a cap is in between), which this toolkit computes log-probabilities by; choose another model."
        )


def context_length(model: PreTrainedModel) -> int:
    """Tokens that a sequence may have."""
    length = getattr(model.config, "max_position_embeddings", None) or 2**30
    slides = getattr(model.config, "use_sliding_window", True)
    window = getattr(model.config, "sliding_window", None) if slides else None
    return min(length, window) if window else length


def must_fit(model: PreTrainedModel, longest: int, max_tokens: int) -> None:
    """Whether a prompt of so many tokens leaves room for a completion."""
    if longest + max_tokens > context_length(model):
        raise UserError(
            f"A prompt of {longest} tokens with {max_tokens} to come does not fit into the model's context of "
            f"{context_length(model)}; shorten the prompts, or let sampler.max_tokens be smaller."
        )


def in_one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 400 else f"{text[:400]} …"
