"""The papers' experiments on language: their data, models, and how far and fast each method went. No tensor library.

A task of this table names the data; with a method it is a whole experiment: `train ultrachat spin`. Numbers come from
the papers and their published code where they say them, and from the recipes they begin with where they do not; each
is a flag. On other data than the named ones `rounds` wants to be set to what an epoch is there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from llm.config import LoRAConfig, ModelConfig, RewardConfig
from llm.data.config import DataConfig, SourceConfig
from llm.table import WrittenTask
from unified_irl.descent_config import DescentConfig
from unified_irl.methods import Method, Phase

BATCH = 64
"""Rows of a step."""
SFT_STEP = 2e-5
"""Step size of cloning, as the recipes of Zephyr have it."""
DIRECT_STEP = 5e-7
"""Of ratios (DPO, SPIN, IRFT and the direct forms of AIHF), with RMSprop."""
REWARD_STEP = 1e-6
"""Of explicit rewards and of policies that climb them (RFT, AIHF, RLHF), with AdamW."""
COVERED = 4
"""Batches of demonstrations that a round of reward learning answers with own samples."""


@dataclass(frozen=True, kw_only=True)
class Paper:
    """One set of data, and the model the papers begin with."""

    summary: str
    model: str
    data: DataConfig
    num_shown: int
    """Demonstrations there are, about."""
    num_compared: int = 0
    """Comparisons there are, about."""
    is_tuned: bool = False
    """Whether the model has been cloned from such demonstrations already."""
    is_large: bool = False
    """Whether it takes adapters and half precision to fit."""


def _from(*files: str, split: str = "train", most: int = 0) -> SourceConfig:
    return SourceConfig(files=files, split=split, most=most)


ZEPHYR = "alignment-handbook/zephyr-7b-sft-full"
PAPERS: dict[str, Paper] = {
    "hh": Paper(
        summary="Anthropic's helpful and harmless conversations, Pythia-1.4B: RFT, AIHF, DPO, RLHF",
        model="EleutherAI/pythia-1.4b",
        data=DataConfig(
            demonstrations=_from("Anthropic/hh-rlhf", most=10_000),
            preferences=_from("Anthropic/hh-rlhf"),
            max_tokens=512,
            completion_tokens=128,
        ),
        num_shown=10_000,
        num_compared=160_000,
    ),
    "tldr": Paper(
        summary="summaries of posts, Pythia-1B: demonstrations, and comparisons of summaries",
        model="EleutherAI/pythia-1b",
        data=DataConfig(
            demonstrations=_from("trl-lib/tldr"),
            preferences=_from("trl-lib/tldr-preference"),
            max_tokens=560,
            completion_tokens=53,
        ),
        num_shown=116_000,
        num_compared=92_000,
    ),
    "spin-data": Paper(
        summary="SPIN's own 50,000 conversations, Zephyr-7B after SFT: SPIN and IRFT",
        model=ZEPHYR,
        data=DataConfig(demonstrations=_from("UCLA-AGI/SPIN_iter0"), max_tokens=1024, completion_tokens=512),
        num_shown=50_000,
        is_tuned=True,
        is_large=True,
    ),
    "ultrachat": Paper(
        summary="UltraChat-200k alone, Zephyr-7B after SFT: IRFT over T and K, SPIN, RFT",
        model=ZEPHYR,
        data=DataConfig(
            demonstrations=_from("HuggingFaceH4/ultrachat_200k", split="train_sft", most=50_000),
            max_tokens=1024,
            completion_tokens=512,
        ),
        num_shown=50_000,
        is_tuned=True,
        is_large=True,
    ),
    "ultrafeedback": Paper(
        summary="UltraChat-200k with UltraFeedback's comparisons, Zephyr-7B after SFT: AIHF and its direct forms",
        model=ZEPHYR,
        data=DataConfig(
            demonstrations=_from("HuggingFaceH4/ultrachat_200k", split="train_sft", most=50_000),
            preferences=_from("HuggingFaceH4/ultrafeedback_binarized", split="train_prefs"),
            max_tokens=1024,
            completion_tokens=512,
        ),
        num_shown=50_000,
        num_compared=61_000,
        is_tuned=True,
        is_large=True,
    ),
}


def settings(name: str) -> WrittenTask:
    """The settings a paper's task starts from."""
    paper = PAPERS[name]
    lora = LoRAConfig(rank=64, alpha=16.0) if paper.is_large else LoRAConfig()
    model = ModelConfig(
        path=paper.model,
        dtype="bfloat16",
        gradient_checkpointing=paper.is_large,
        lora=lora,
    )
    return WrittenTask(model=model, data=paper.data, reward=RewardConfig(level="sequence"))


def row(name: str, method: Method) -> Method:
    """The row with the paper's step sizes and lengths."""
    paper = PAPERS[name]
    # A base model is cloned first; one that has been already is taken as it is.
    init = "base" if paper.is_tuned or method.reward == "none" else "clone"
    direct = method.reward == "implicit"
    step = DIRECT_STEP if direct else SFT_STEP if method.reward == "none" else REWARD_STEP
    warm_start = replace(
        method.warm_start, rounds=_batches(paper.num_shown), batch_size=BATCH, step_size=SFT_STEP / step
    )
    phases = tuple(_phase(phase, method, paper) for phase in method.phases)
    stages = (warm_start, *phases) if init == "clone" else phases
    total = sum(phase.rounds * phase.reward_steps for phase in stages)
    descent = DescentConfig(
        optimiser="rmsprop" if direct else "adam",
        learning_rate=step,
        schedule="linear",
        warmup_steps=max(1, total // 10),
        total_steps=total + 1,
        max_grad_norm=10.0 if direct else 1.0,
        micro_batch_size=8,
    )
    return replace(
        method, beta=0.1, init=init, warm_start=warm_start, policy_descent=descent,
        reward_descent=replace(descent, optimiser="adam", learning_rate=REWARD_STEP), phases=phases,
    )  # fmt: skip


def _batches(rows: int, epochs: float = 1.0) -> int:
    return max(1, math.ceil(epochs * rows / BATCH))


def _phase(phase: Phase, method: Method, paper: Paper) -> Phase:
    phase = replace(phase, batch_size=BATCH)
    if method.reward == "none":
        return replace(phase, rounds=_batches(paper.num_shown))
    if method.reward == "implicit":
        return _direct(phase, method, paper)
    if phase.policy_updates == 0:  # the reward alone, of rlhf: an epoch
        return replace(phase, rounds=_batches(paper.num_compared), reward_steps=1, until="rounds")
    if not phase.learns_demonstrations:
        return replace(phase, rounds=_batches(paper.num_shown), policy_updates=1, practice=BATCH, until="rounds")
    # One epoch: every round answers a few batches of prompts, tells its reward, and climbs it.
    return replace(
        phase,
        demonstration="linear" if method.name == "ml-irl" else "pairwise",
        prompts=COVERED * BATCH / paper.num_shown,
        rounds=_batches(paper.num_shown) // COVERED,
        reward_steps=COVERED,
        policy_updates=COVERED,
    )


def _direct(phase: Phase, method: Method, paper: Paper) -> Phase:
    """Ratios. SPIN takes the whole data four times, with two epochs each; others five parts of them, an epoch each."""
    if not phase.needs_own_samples:
        return replace(phase, rounds=_batches(max(paper.num_shown if phase.clones else 0, paper.num_compared)))
    if method.name == "spin":
        return replace(phase, rounds=4, prompts=1.0, reward_steps=_batches(paper.num_shown, epochs=2))
    return replace(phase, rounds=5, prompts=0.2, reward_steps=_batches(paper.num_shown // 5))
