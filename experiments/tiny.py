"""A tiny model and small files in the layouts of well-known datasets, to try on any machine what large ones will do.

The texts are made from a few words, so that a model of a few thousand weights can learn them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from llm.config import Family, ModelConfig
from llm.models import quiet, small_model
from llm.sizes import Shape

PAD, END, TURN, OVER = "<|pad|>", "<|endoftext|>", "<|turn|>", "<|over|>"
TEMPLATE = (
    "{% for message in messages %}<|turn|>{{ message.role }}\n{{ message.content }}<|over|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
"""Every message begins with who speaks and ends with a token that says so."""
THINGS = ("rivers", "bread", "trains", "maps", "clocks", "stars", "bees", "bridges")
DEEDS = ("work", "grow", "end", "begin", "change", "rest")
CONTEXT = 256


def make(folder: Path, family: Family, rows: int, seed: int) -> list[Path]:
    """Write the model and the files; their paths."""
    chance = random.Random(seed)
    files = {f"{name}.jsonl": [row(chance) for _ in range(rows)] for name, row in LAYOUTS.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, made in files.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in made))
    model(folder / "model", family, [json.dumps(row) for made in files.values() for row in made], seed)
    return [folder / "model", *(folder / name for name in files)]


def model(folder: Path, family: Family, texts: list[str], seed: int) -> None:
    """An untaught model of the family, and a tokenizer that has seen the texts."""
    special = [PAD, END, TURN, OVER]
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    words.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=512, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=PAD, eos_token=OVER, bos_token=END, additional_special_tokens=[TURN]
    )
    tokenizer.chat_template = TEMPLATE
    shape = Shape(layers=2, width=64, heads=4, documents=0, passes=0)
    made = small_model(ModelConfig(family=family, base_seed=seed), shape, len(tokenizer), CONTEXT)
    for name in ("pad", "bos", "eos"):
        setattr(made.config, f"{name}_token_id", getattr(tokenizer, f"{name}_token_id"))
    with quiet():
        made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _question(chance: random.Random) -> str:
    return f"how do {chance.choice(THINGS)} {chance.choice(DEEDS)}?"


def _answer(question: str, chance: random.Random, *, good: bool) -> str:
    """Good answers name the thing that was asked about; the others speak of something else."""
    thing = question.split()[2]
    if not good:
        thing = chance.choice([one for one in THINGS if one != thing])
    return f"{thing} {question.split()[3].rstrip('?')} {chance.choice(('slowly', 'quietly', 'again'))}."


def _hh(chance: random.Random) -> dict[str, str]:
    """Two conversations as texts that begin alike."""
    first, second = _question(chance), _question(chance)
    before = f"\n\nHuman: {first}\n\nAssistant: {_answer(first, chance, good=True)}\n\nHuman: {second}\n\nAssistant:"
    return {
        "chosen": f"{before} {_answer(second, chance, good=True)}",
        "rejected": f"{before} {_answer(second, chance, good=False)}",
    }


def _messages(*said: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[place % 2], "content": one} for place, one in enumerate(said)]


def _ultrachat(chance: random.Random) -> dict[str, Any]:
    """A conversation of two questions and answers."""
    first, second = _question(chance), _question(chance)
    said = (first, _answer(first, chance, good=True), second, _answer(second, chance, good=True))
    return {"prompt": first, "prompt_id": f"{chance.getrandbits(64):016x}", "messages": _messages(*said)}


def _ultrafeedback(chance: random.Random) -> dict[str, Any]:
    """Two answers to one question, each as a whole conversation, with their scores."""
    asked = _question(chance)
    chosen, rejected = (_messages(asked, _answer(asked, chance, good=good)) for good in (True, False))
    return {
        "prompt": asked,
        "prompt_id": f"{chance.getrandbits(64):016x}",
        "chosen": chosen,
        "rejected": rejected,
        "messages": chosen,
        "score_chosen": 8.0,
        "score_rejected": 4.0,
    }


def _tldr(chance: random.Random) -> dict[str, str]:
    """A post, and a summary of it that begins with a space."""
    thing, deed = chance.choice(THINGS), chance.choice(DEEDS)
    return {
        "prompt": f"POST: the {thing} {deed}, they say, again and again.\n\nTL;DR:",
        "completion": f" {thing} {deed}",
    }


def _tldr_preference(chance: random.Random) -> dict[str, str]:
    row = _tldr(chance)
    other = chance.choice([one for one in THINGS if one not in row["completion"]])
    return {"prompt": row["prompt"], "chosen": row["completion"], "rejected": f" {other} rest"}


def _spin(chance: random.Random) -> dict[str, Any]:
    """A person's answer, and one that a model made."""
    asked = _question(chance)
    real, generated = (_messages(asked, _answer(asked, chance, good=good)) for good in (True, False))
    return {"real": real, "generated": generated}


LAYOUTS: dict[str, Callable[[random.Random], dict[str, Any]]] = {
    "hh": _hh,
    "tldr": _tldr,
    "tldr-preference": _tldr_preference,
    "spin": _spin,
    "ultrachat": _ultrachat,
    "ultrafeedback": _ultrafeedback,
}
"""The files, and how a row of each is made."""
