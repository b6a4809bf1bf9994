"""What contenders of language are given, in files: models made from nothing, pairs and prompts of random tokens.

Tokens 0, 1 and 2 are padding, begin and end.
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

END = 2
FIRST_WORD = 3
Pairs = dict[str, list[list[int]]]


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """A GPT-NeoX."""

    layers: int
    width: int
    heads: int
    vocabulary: int
    context: int = 256


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large it all is."""

    compared: ModelSize
    """The model that learns from pairs."""
    num_pairs: int
    prompt: tuple[int, int]
    """The shortest and the longest prompt, the begin token included."""
    completion: tuple[int, int]
    """The shortest and the longest completion, the end token included."""
    batch: int
    """Pairs of a step."""
    speaker: ModelSize
    """The model that completes prompts."""
    num_prompts: int
    asked: tuple[int, int]
    """The shortest and the longest of these prompts."""
    samples: int
    """Completions of each."""
    max_tokens: int
    mean_tokens: int
    """About how long a completion is where it may end, its end included."""
    rows: int
    """Tokens of the step whose memory is measured."""
    row_width: int
    row_vocabulary: int
    task_size: str
    """Of the models of a whole round."""


USUAL = Sizes(
    compared=ModelSize(layers=6, width=256, heads=4, vocabulary=8192),
    num_pairs=128,
    prompt=(16, 64),
    completion=(32, 160),
    batch=8,
    speaker=ModelSize(layers=4, width=128, heads=4, vocabulary=1024),
    num_prompts=64,
    asked=(8, 32),
    samples=4,
    max_tokens=64,
    mean_tokens=24,
    rows=1024,
    row_width=512,
    row_vocabulary=131072,
    task_size="minutes",
)
TOY = Sizes(
    compared=ModelSize(layers=1, width=16, heads=2, vocabulary=64),
    num_pairs=16,
    prompt=(4, 8),
    completion=(4, 16),
    batch=4,
    speaker=ModelSize(layers=1, width=16, heads=2, vocabulary=32),
    num_prompts=8,
    asked=(4, 8),
    samples=2,
    max_tokens=16,
    mean_tokens=6,
    rows=64,
    row_width=16,
    row_vocabulary=32768,
    task_size="seconds",
)
PYTHIA = ModelSize(layers=24, width=2048, heads=16, vocabulary=50304, context=2048)
"""The shape of Pythia-1.4B."""


def make_model(size: ModelSize) -> PreTrainedModel:
    """Always the same weights for the same size."""
    from llm.config import ModelConfig
    from llm.models import small_model
    from llm.sizes import Shape

    shape = Shape(layers=size.layers, width=size.width, heads=size.heads, documents=1, passes=1)
    return small_model(ModelConfig(), shape, size.vocabulary, size.context)


def keep_model(model: PreTrainedModel, folder: Path) -> str:
    from llm.models import quiet

    with quiet():
        model.save_pretrained(folder)
    return str(folder)


def pairs(sizes: Sizes, vocabulary: int) -> Pairs:
    """Prompts and two completions of each, of random tokens and lengths; every fourth prompt is that of the pair
    before it."""
    draw = random.Random(0)

    def words(count: int) -> list[int]:
        return [draw.randrange(FIRST_WORD, vocabulary) for _ in range(count)]

    made: Pairs = {"prompt": [], "chosen": [], "rejected": []}
    for number in range(sizes.num_pairs):
        prompt = [1, *words(draw.randint(*sizes.prompt) - 1)]
        made["prompt"].append(made["prompt"][-1] if number % 4 == 3 else prompt)
        for side in ("chosen", "rejected"):
            made[side].append([*words(draw.randint(*sizes.completion) - 1), END])
    return made


def prompts(sizes: Sizes) -> list[list[int]]:
    draw, last = random.Random(0), sizes.speaker.vocabulary
    return [
        [1, *(draw.randrange(FIRST_WORD, last) for _ in range(draw.randint(*sizes.asked) - 1))]
        for _ in range(sizes.num_prompts)
    ]


def set_end(model: PreTrainedModel, mean_tokens: int) -> None:
    """The end becomes as likely as 1 / `mean_tokens` after every token, or as good as impossible where that is 0.

    The last normalisation is made to give a one in its first place, which only the end's row of the head looks at: its
    logit is a constant. Those of the other words v have a variance of |w_v|² at most, whose effect on the sum of their
    exponentials is allowed for to second order.
    """
    import torch

    with torch.no_grad():
        norm, head = model.base_model.final_layer_norm, model.get_output_embeddings().weight
        norm.weight[0], norm.bias[0] = 0.0, 1.0
        head[:, 0], head[END] = 0.0, 0.0
        others = torch.arange(len(head)) != END
        log_others = math.log(len(head) - 1) + 0.5 * float(head[others].square().sum(1).mean())
        head[END, 0] = log_others - math.log(mean_tokens - 1) if mean_tokens else -30.0


def keep(what: Pairs | list[list[int]], file: Path) -> str:
    file.write_text(json.dumps(what))
    return str(file)


def pair_flop(size: ModelSize, made: Pairs) -> float:
    """Floating-point operations of a step on a pair, the mean over pairs, if nothing is padded or computed twice.

    A pass of a token through the 12·width² weights of a layer takes a multiplication and an addition each; looking back
    at t tokens takes twice that per unit of width, for scores and for sums. Every scored token passes through the head,
    vocabulary·width weights. Backward takes twice what forward takes. Log-probabilities of the reference are at hand.
    """
    total = 0.0
    for side in ("chosen", "rejected"):
        for prompt, completion in zip(made["prompt"], made[side], strict=True):
            read = len(prompt) + len(completion) - 1
            layer = 2 * 12 * size.width**2 * read + 4 * size.width * read * (read + 1) // 2
            total += 3 * (size.layers * layer + 2 * size.vocabulary * size.width * len(completion))
    return total / len(made["prompt"])
