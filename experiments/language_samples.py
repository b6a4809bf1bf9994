"""What a language run's policy says, as data and as a page for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from experiments.language_runs import load_language_run
from experiments.show import markdown
from experiments.summary import number
from llm.domain import LanguageDomain
from unified_irl.errors import UserError
from unified_irl.feed import stream
from unified_irl.trajectories import Trajectories


@torch.no_grad()
def said(run: Path, which: str, count: int, seed: int) -> dict[str, Any]:
    """As JSON-able data: prompts that nobody demonstrated, and for each what the base model said, what the policy says
    at random and at its likeliest, with true and learnt rewards."""
    learnt = load_language_run(run, which)
    domain, policy = learnt.domain, learnt.policy
    if not isinstance(domain, LanguageDomain):
        raise UserError(
            f"{run} is a run of {learnt.task}, which knows no true reward; talk to it with `unified-irl chat`."
        )
    draw = stream(seed, "page")
    apart = torch.arange(domain.task.num_shown, len(domain.contexts))
    prompts = apart[torch.randperm(len(apart), generator=draw)[:count]]
    contexts = domain.contexts[prompts]
    speakers = {
        "at first": domain.start.sample(contexts, draw),
        "now": policy.sample(contexts, draw),
        "now, likeliest": policy.greedy(contexts),
    }
    reward = learnt.learnt_reward

    def completions(own: Trajectories) -> list[dict[str, Any]]:
        texts, ended = domain.codec.texts(own)
        gold = domain.task.gold(prompts, texts, ended).tolist()
        believed = [None] * len(texts) if reward is None else (reward(own).cpu() * own.rewarded).sum(1).tolist()
        return [
            {"text": f"{text}{'' if over else ' …'}", "gold": true, "learnt": says}
            for text, over, true, says in zip(texts, ended, gold, believed, strict=True)
        ]

    return {
        "title": learnt.title,
        "prompts": [domain.task.prompts[one] for one in prompts.tolist()],
        "speakers": {who: completions(own) for who, own in speakers.items()},
    }


def page(run: Path, which: str, count: int, seed: int) -> str:
    """The same as Markdown."""
    told = said(run, which, count, seed)
    lines = [
        (prompt if who == "at first" else "", who, one["text"], *rewards(one))
        for place, prompt in enumerate(told["prompts"])
        for who, one in ((who, completions[place]) for who, completions in told["speakers"].items())
    ]
    head = f"# {told['title']}\n\n"
    table = markdown(("prompt", "", "completion", "true reward", "learnt reward"), [_safe(line) for line in lines])
    return f"{head}Prompts that nobody demonstrated. `…`: cut off before it ended.\n\n{table}"


def rewards(completion: dict[str, Any]) -> tuple[str, str]:
    """The true and the learnt reward of a completion, in words."""
    learnt = completion["learnt"]
    return number(completion["gold"]), "–" if learnt is None else number(learnt)


def _safe(line: tuple[str, ...]) -> tuple[str, ...]:
    """A bar inside a cell would end it."""
    return tuple(cell.replace("|", "\\|").replace("<", "&lt;") for cell in line)
