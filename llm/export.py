"""What was learnt as ordinary folders of transformers and peft: a policy, its adapter, a reward that classifies."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file
from transformers import (
    AutoModelForSequenceClassification,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from llm.models import quiet
from llm.reward import TextReward
from llm.roles import Adapter, Role
from unified_irl.errors import UserError


def save_policy(role: Role, tokenizer: PreTrainedTokenizerFast, end: int, folder: Path) -> None:
    """A causal language model of its own, whatever it was made of, which stops where it learnt to stop."""
    model = whole(role)
    padding = tokenizer.pad_token_id
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=end, pad_token_id=end if padding is None else padding
    )
    with quiet():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_adapter(role: Role, base: str, folder: Path) -> None:
    """What an adapter adds to its base, as peft reads it."""
    if not isinstance(role, Adapter):
        raise UserError("The run trained all weights and no adapter; export the whole policy (--form merged).")
    shared = role.shared
    settings = LoraConfig(
        r=shared.config.rank,
        lora_alpha=shared.config.alpha or 2 * shared.config.rank,
        target_modules=shared.where,
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
        inference_mode=True,
    )
    folder.mkdir(parents=True, exist_ok=True)
    settings.save_pretrained(folder)
    weights = {f"base_model.model.{name}": value.cpu().contiguous() for name, value in role.weights().items()}
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def why_no_classifier(reward: TextReward | None) -> str:
    """Half a sentence on why a reward has no form that transformers knows; empty where it has one."""
    if reward is None:
        return "the method has no reward of its own"
    if reward.config.level == "token":
        return "it pays at every token (reward.level token), and a classifier reads off one number at the end"
    if reward.config.bound:
        return "it is squashed (reward.bound), and a classifier's number is not"
    return ""


def save_reward(reward: TextReward, tokenizer: PreTrainedTokenizerFast, end: int, folder: Path) -> None:
    """A classifier with one number, read off the last token that is no padding."""
    assert not why_no_classifier(reward)
    body = whole(reward.role)
    config = copy.deepcopy(body.config)
    config.num_labels = 1
    tokenizer = copy.deepcopy(tokenizer)
    config.pad_token_id = tokenizer.pad_token_id = _padding(tokenizer, end)
    with quiet():
        model = AutoModelForSequenceClassification.from_config(config, attn_implementation="sdpa")
        model.base_model.load_state_dict(body.base_model.state_dict())
        with torch.no_grad():
            model.score.weight.copy_(reward.head.weight)
        model.to(torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _padding(tokenizer: PreTrainedTokenizerFast, end: int) -> int:
    """A token that no answer ends with: where the end itself pads, a classifier would read off the token before it."""
    given = (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id)
    return next((int(one) for one in given if one is not None and one != end), int(end == 0))


def whole(role: Role) -> PreTrainedModel:
    """A model that speaks as the role does, without adapters."""
    with role.active():
        model = copy.deepcopy(role.model)
    if not isinstance(role, Adapter):
        return model
    for name, layer in [(name, one) for name, one in model.named_modules() if isinstance(one, BaseTunerLayer)]:
        layer.merge(adapter_names=[role.name])
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, layer.get_base_layer())
    vars(model).pop("peft_config", None)
    return model
