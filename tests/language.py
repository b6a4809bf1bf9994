"""A language task of a dozen words, the settings that learn it in seconds, and tiny models in folders."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from speakers import CONTEXT, CONTEXTS, END, VOCABULARY, model_of
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Generator, Tensor
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedModel, PreTrainedTokenizerFast

from envs.language.task import LanguageTask, Speaker
from llm.codec import word_tokenizer
from llm.config import ImproveConfig, LoRAConfig, ModelConfig, PeopledConfig, SpeechConfig
from llm.domain import LanguageDomain
from llm.models import prepared
from llm.roles import Adapter, Role, Shared
from llm.speech import Manner, Speech
from unified_irl.descent_config import DescentConfig
from unified_irl.methods import METHODS, Method, Phase
from unified_irl.trajectories import Trajectories

torch.set_num_threads(1)

FAMILIES = ("gpt-neox", "llama", "mistral", "qwen")
LETTERS = ("a", "b", "c", "d", "e")
MANNER = Manner(end=END, max_tokens=20, rows=5, tokens_per_pass=256)


class Praise:
    """A letter is asked for: to name it first pays 1, every 'good' pays 1, every 'bad' takes 1, to be cut off takes 2.

    Five words at most, so that 4 'good' after the letter are the best there is: a true reward of 5.
    """

    name = "praise"
    words = (*LETTERS, "ask", "beg", "good", "bad", "well", "ill", "so")
    prompts = tuple(f"{how} {letter}" for letter in LETTERS for how in ("ask", "beg"))
    num_shown = 6
    max_words = 6

    def corpus(self, count: int, draw: Generator) -> list[str]:
        prompts = torch.randint(len(self.prompts), (count,), generator=draw)
        return [
            f"{self.prompts[prompt]} {said}"
            for prompt, said in zip(prompts.tolist(), self.propose(prompts, draw), strict=True)
        ]

    def gold(self, prompts: Tensor, completions: Sequence[str], ended: Sequence[bool]) -> Tensor:
        values = []
        for prompt, text, over in zip(prompts.tolist(), completions, ended, strict=True):
            said = text.split()
            named = said[:1] == self.prompts[prompt].split()[1:]
            values.append(named + said.count("good") - said.count("bad") - 2.0 * (not over))
        return torch.tensor(values, dtype=torch.float64)

    def demonstrate(self, prompts: Tensor, draw: Generator) -> list[str]:
        return self._said(prompts, torch.full((len(prompts),), 0.8), draw)

    def expert(self, prompts: Tensor, draw: Generator) -> list[str]:
        return [f"{self.prompts[prompt].split()[1]} good good good good" for prompt in prompts.tolist()]

    def propose(self, prompts: Tensor, draw: Generator) -> list[str]:
        return self._said(prompts, torch.rand(len(prompts), generator=draw), draw)

    def felt(self, prompts: Tensor, completions: Sequence[str], ended: Sequence[bool]) -> Tensor:
        return self.gold(prompts, completions, ended)

    def examine(
        self, speaker: Speaker, prompts: Tensor, completions: Sequence[str], ended: Sequence[bool]
    ) -> dict[str, float]:
        log_next = speaker.log_next(prompts, completions)
        assert log_next.shape[2] == len(self.words) + 1
        return {"said_good": float(log_next[:, 0, self.words.index("good")].exp().mean())}

    def _said(self, prompts: Tensor, quality: Tensor, draw: Generator) -> list[str]:
        """The letter or another, then up to four words that are good ones with the given probability."""
        count = len(prompts)
        chance = torch.rand(count, 5, generator=draw)
        length = torch.randint(1, 5, (count,), generator=draw).tolist()
        other = torch.randint(len(LETTERS), (count,), generator=draw).tolist()
        kind = torch.randint(3, (count, 4), generator=draw).tolist()
        texts = []
        for row, (prompt, good) in enumerate(zip(prompts.tolist(), quality.tolist(), strict=True)):
            letter = self.prompts[prompt].split()[1] if chance[row, 4] < good else LETTERS[other[row]]
            rest = [
                ("good", "well", "good")[kind[row][k]] if chance[row, k] < good else ("bad", "ill", "so")[kind[row][k]]
                for k in range(length[row])
            ]
            texts.append(" ".join([letter, *rest]))
        return texts


TASK: LanguageTask = Praise()
TINY = ModelConfig(size="seconds", layers=1, width=16, documents=400)


@cache
def cache_folder() -> Path:
    """Where the base models of this process are kept."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def settings(**changes: Any) -> PeopledConfig:
    people = SpeechConfig(num_demonstrations=12, num_preferences=12)
    usual = PeopledConfig(
        model=TINY, people=people, improve=ImproveConfig(samples=2), num_examined=4, num_fresh=8,
        cache=str(cache_folder()), device="cpu",
    )  # fmt: skip
    return replace(usual, **changes)


def domain(seed: int = 0, **changes: Any) -> LanguageDomain:
    return LanguageDomain(settings(**changes), seed, TASK)


def short(name: str, rounds: int = 2) -> Method:
    """The row with few rounds of few steps."""

    def cut(phase: Phase) -> Phase:
        return replace(
            phase, rounds=rounds, reward_steps=min(2, phase.reward_steps), practice=min(4, phase.practice),
            policy_updates=min(2, phase.policy_updates), patience=2, batch_size=6,
        )  # fmt: skip

    row = METHODS[name]
    return replace(row, phases=tuple(map(cut, row.phases)), warm_start=cut(row.warm_start))


def gpt2(**more: Any) -> PreTrainedModel:
    """A tiny model whose layers are no linear ones and whose input and output embeddings are the same."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=CONTEXT, bos_token_id=1, eos_token_id=END
    )
    model = prepared(AutoModelForCausalLM.from_config(config, attn_implementation="sdpa"), ModelConfig(**more))
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(10.0)
    return model


def tiny(kind: str, **more: Any) -> PreTrainedModel:
    """One of the families, 'grouped', or 'gpt2'."""
    return gpt2(**more) if kind == "gpt2" else model_of(kind, **more)


def adapters(kind: str = "llama", *, opinions: bool = True, **more: Any) -> tuple[Shared, Adapter, Adapter]:
    """Two adapters on one tiny base, with weights that matter unless they are to be as they begin."""
    shared = Shared(tiny(kind, **more), LoRAConfig(rank=4), 0)
    pair = Adapter(shared, "policy"), Adapter(shared, "reward")
    for seed, one in enumerate(pair) if opinions else ():
        stir(one, seed)
    return shared, *pair


@torch.no_grad()
def stir(role: Role, seed: int) -> None:
    """Other weights."""
    draw = torch.Generator().manual_seed(seed)
    for value in role.parameters():
        value.add_(0.1 * torch.randn(value.shape, generator=draw))


def said_by(role: Role, seed: int = 3) -> Trajectories:
    """Completions of a dozen prompts of many lengths."""
    return Speech(role, MANNER).sample(CONTEXTS, torch.Generator().manual_seed(seed))


def gradients(role: Role, behaviours: Trajectories) -> list[Tensor]:
    said = Speech(role, MANNER).log_prob(behaviours)
    return list(torch.autograd.grad(said.sum(), role.parameters(), allow_unused=True))


def bpe_tokenizer() -> PreTrainedTokenizerFast:
    """Pieces of bytes, in which every word of the task with a space before it is one; an end, no padding, no begin."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=alphabet, special_tokens=["<over>"], show_progress=False
    )
    tokenizer.train_from_iterator([f"{word} {word} {word}" for word in (*TASK.words, *TASK.words)], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<over>")


def saved(folder: Path, kind: str = "llama") -> PreTrainedModel:
    """A tiny model and a tokenizer of as many words, in a folder as transformers lays it out."""
    model = tiny(kind)
    model.save_pretrained(folder)
    word_tokenizer([f"w{number}" for number in range(model.config.vocab_size - 4)]).save_pretrained(folder)
    return model


def gentle(**changes: Any) -> DescentConfig:
    """Steps as smooth as the loss."""
    return DescentConfig(optimiser="sgd", learning_rate=1e-2, **changes)


@contextmanager
def counted(of: Any, name: str, patch: Any) -> Iterator[list[Any]]:
    """The first arguments of every call of a method."""
    seen: list[Any] = []
    was = getattr(of, name)

    def noting(*given: Any, **more: Any) -> Any:
        seen.append(given)
        return was(*given, **more)

    with patch.context() as within:
        within.setattr(of, name, noting)
        yield seen
