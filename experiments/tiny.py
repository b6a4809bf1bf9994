"""A tiny model and small files in the layouts of well-known datasets, to try on any machine what large ones will do.

The texts are made from a few words, so that a model of a few thousand weights can learn them.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from llm.models import quiet

PAD, END, TURN, OVER = "<|pad|>", "<|endoftext|>", "<|turn|>", "<|over|>"
TEMPLATE = (
    "{% for message in messages %}<|turn|>{{ message.role }}\n{{ message.content }}<|over|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
"""Every message begins with who speaks and ends with a token that says so."""
THINGS = ("rivers", "bread", "trains", "maps", "clocks", "stars", "bees", "bridges")
DEEDS = ("work", "grow", "end", "begin", "change", "rest")
CONTEXT = 256


def make(folder: Path, rows: int, seed: int) -> list[Path]:
    """Write the model and the files; their paths."""
    chance = random.Random(seed)
    files = {
        "hh.jsonl": [_hh(chance) for _ in range(rows)],
        "ultrachat.jsonl": [_ultrachat(chance) for _ in range(rows)],
        "ultrafeedback.jsonl": [_ultrafeedback(chance) for _ in range(rows)],
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, made in files.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in made))
    model(folder / "model", [json.dumps(row) for made in files.values() for row in made], seed)
    return [folder / "model", *(folder / name for name in files)]


def model(folder: Path, texts: list[str], seed: int) -> None:
    """An untaught model of the Llama family, and a tokenizer that has seen the texts."""
    import torch

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
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=CONTEXT, pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
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
