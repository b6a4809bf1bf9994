"""Who judges an answer: a reward that a run has learnt, a classifier of transformers, or a function in Python.

A judge may have a tokenizer of its own; what it is asked about are texts and conversations, not tokens.
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from llm.config import ModelConfig
from llm.data.chat import Scribe, Spoken
from llm.data.records import Prompt, Reply, as_json
from llm.data.rows import behaviours
from llm.models import UNREADABLE, in_one_line, look_at, quiet
from unified_irl.contracts import RewardFunction
from unified_irl.errors import UserError

Asked = Sequence[tuple[Prompt, Reply]]
ROWS = 64
"""Answers judged at a time."""


class Judge(Protocol):
    """A number for every answer; more is better."""

    def __call__(self, answers: Asked) -> list[float]: ...


class RewardJudge:
    """The reward of a run, explicit or implicit, summed over an answer."""

    def __init__(self, reward: RewardFunction, spelt: Callable[[Prompt, Reply], Spoken]) -> None:
        self.reward, self.spelt = reward, spelt

    @torch.no_grad()
    def __call__(self, answers: Asked) -> list[float]:
        said: list[float] = []
        for begin in range(0, len(answers), ROWS):
            some = behaviours([self.spelt(*one) for one in answers[begin : begin + ROWS]])
            said += (self.reward(some).cpu() * some.rewarded).sum(1).tolist()
        return said


class Classifier:
    """A model of transformers that reads one number off a prompt and its answer, spelt by its own tokenizer."""

    def __init__(self, config: ModelConfig, device: str) -> None:
        self.model, self.scribe = _classifier(config)
        self.model.to(device)
        self.padding = self.model.config.pad_token_id

    @torch.no_grad()
    def __call__(self, answers: Asked) -> list[float]:
        said: list[float] = []
        for begin in range(0, len(answers), ROWS):
            rows = [torch.tensor(self.scribe.spoken(*one).tokens) for one in answers[begin : begin + ROWS]]
            token = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.padding)
            length = torch.tensor([len(row) for row in rows])
            real = torch.arange(token.shape[1]) < length[:, None]
            device = self.model.device
            said += self.model(token.to(device), attention_mask=real.to(device).long()).logits[:, 0].tolist()
        return said


def _classifier(config: ModelConfig) -> tuple[PreTrainedModel, Scribe]:
    look_at(config)
    options = {"local_files_only": not config.allow_download, "trust_remote_code": config.trust_remote_code}
    try:
        kind = AutoConfig.from_pretrained(config.path, **options)
        with quiet():
            model, told = AutoModelForSequenceClassification.from_pretrained(
                config.path, config=kind, use_safetensors=True, output_loading_info=True, **options
            )
            tokenizer = AutoTokenizer.from_pretrained(config.path, **options)
    except UNREADABLE as error:
        raise UserError(f"The classifier at {config.path} cannot be loaded: {in_one_line(error)}") from error
    if told["missing_keys"]:
        raise UserError(
            f"The weights at {config.path} lack {', '.join(sorted(told['missing_keys'])[:3])}: they are of no "
            "classifier. Name a model that was trained as a reward."
        )
    if model.config.num_labels != 1:
        raise UserError(f"The classifier at {config.path} has {model.config.num_labels} labels; a reward has one.")
    if model.config.pad_token_id is None:
        raise UserError(f"The classifier at {config.path} names no pad_token_id in its config.json; add one.")
    return model.eval(), Scribe(tokenizer)


class Function:
    """`module:function` of the user's own: it takes prompts and answers, as many of each, and gives as many numbers. A
    conversation comes as a list of messages."""

    def __init__(self, name: str) -> None:
        self.name = name
        module, _, attribute = name.partition(":")
        try:
            self.function = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise UserError(
                f"There is no function {name}: {in_one_line(error)}. Expected module:function, with the module where "
                "Python finds it (PYTHONPATH)."
            ) from error

    def __call__(self, answers: Asked) -> list[float]:
        prompts, replies = ([as_json(side) for side in sides] for sides in zip(*answers, strict=True))
        try:
            said = list(self.function(prompts, replies))
        except Exception as error:  # whatever somebody's function may raise
            why = f"{type(error).__name__}: {in_one_line(error)}"
            raise UserError(f"{self.name} failed on {len(answers)} prompts and answers: {why}") from error
        if len(said) != len(answers):
            raise UserError(f"{self.name} gave {len(said)} numbers for {len(answers)} answers; expected as many.")
        try:
            numbers = [float(one) for one in said]
        except (TypeError, ValueError) as error:
            raise UserError(f"{self.name} gave something that is no number: {in_one_line(error)}") from error
        if wrong := [one for one in numbers if not math.isfinite(one)]:
            raise UserError(f"{self.name} gave {wrong[0]}; expected finite numbers.")
        return numbers


def judge_called(name: str, allow_download: bool, device: str) -> Judge:
    """A function, where the name has a colon and is no folder's; otherwise a classifier."""
    if ":" in name and not os.path.isdir(name):
        return Function(name)
    return Classifier(ModelConfig(path=name, allow_download=allow_download), device)
