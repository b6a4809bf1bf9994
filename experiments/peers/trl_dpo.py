"""DPOTrainer as TRL 1.16.0 offers it, in an environment of its own, on pairs and a model that lie in files.

Reference log-probabilities are precomputed; what is logged goes nowhere.
"""

from __future__ import annotations

import importlib.metadata
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from serving import Turns, options
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import DPOConfig, DPOTrainer

SPECIAL = ("<pad>", "<begin>", "<end>")


def tokenizer(num_words: int) -> PreTrainedTokenizerFast:
    """One word for each token, so that the trainer's own tokenizing gives back the very tokens."""
    words = {word: number for number, word in enumerate((*SPECIAL, *(f"w{k}" for k in range(3, num_words))))}
    made = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", bos_token="<begin>", eos_token="<end>")


def text(tokens: list[int]) -> str:
    return " ".join(SPECIAL[token] if token < len(SPECIAL) else f"w{token}" for token in tokens)


def texts(pairs: dict[str, list[list[int]]]) -> Dataset:
    """Completions begin with the space that parts them from their prompts; each ends with the end already."""
    return Dataset.from_dict(
        {
            "prompt": [text(tokens) for tokens in pairs["prompt"]],
            **{side: [" " + text(tokens) for tokens in pairs[side]] for side in ("chosen", "rejected")},
        }
    )


class Served(TrainerCallback):
    """First the losses of some steps, then block after block."""

    def __init__(self, facts: dict[str, Any], num_losses: int, size: int) -> None:
        self.facts, self.num_losses, self.size = facts, num_losses, size
        self.losses: list[float] = []
        self.turns = Turns()

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.num_losses:
            self.turns.ready(self.facts | {"losses": self.losses})
        elif state.global_step > self.num_losses:
            self.turns.did(self.size)
        control.should_training_stop = self.turns.over


def main() -> None:
    told = options()
    torch.set_num_threads(told["first_threads"])
    pairs = json.loads(Path(told["pairs"]).read_text())
    model = AutoModelForCausalLM.from_pretrained(told["model"], dtype=torch.float32, attn_implementation="sdpa")
    facts = {name: importlib.metadata.version(name) for name in ("trl", "transformers", "accelerate", "torch")}
    served = Served(facts, told["losses"], told["batch"])
    with tempfile.TemporaryDirectory() as folder:
        settings = DPOConfig(
            output_dir=folder,
            beta=told["beta"],
            learning_rate=told["learning_rate"],
            lr_scheduler_type="constant",
            per_device_train_batch_size=told["batch"],
            train_sampling_strategy="sequential",
            precompute_ref_log_probs=True,
            max_steps=10**9,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=told["device"] == "cpu",
            **told["settings"],
        )
        trainer = DPOTrainer(
            model=model,
            args=settings,
            train_dataset=texts(pairs),
            processing_class=tokenizer(model.config.vocab_size),
            callbacks=[served],
        )
        for number, given in enumerate(zip(*(pairs[name] for name in ("prompt", "chosen", "rejected")), strict=True)):
            row = trainer.train_dataset[number]
            assert [row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]] == list(given), "other tokens"
        compute = trainer.compute_loss

        def watched(*given, **more):
            loss = compute(*given, **more)
            if len(served.losses) < served.num_losses:
                served.losses.append(float(loss))
            return loss

        trainer.compute_loss = watched
        trainer.train()


if __name__ == "__main__":
    main()
