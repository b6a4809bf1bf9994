"""What a language run's policy says, as data and as a page for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from experiments.language_runs import load_language_run
from experiments.show import markdown
from experiments.summary import number
from llm.data.records import Conversation
from unified_irl.feed import stream
from unified_irl.trajectories import Trajectories


@torch.no_grad()
def said(run: Path, which: str, count: int, seed: int) -> dict[str, Any]:
    """As JSON-able data: prompts that nobody demonstrated, and for each what the base model said, what the policy says
    at random and at its likeliest, with rewards: the true one, or what a judge says where there is one; and the learnt
    one, if there is any."""
    learnt = load_language_run(run, which)
    domain, policy = learnt.domain, learnt.policy
    draw = stream(seed, "page")
    contexts = domain.set_aside(count, draw)
    speakers = {
        "at first": domain.start.sample(contexts, draw),
        "now": policy.sample(contexts, draw),
        "now, likeliest": policy.greedy(contexts),
    }
    reward = learnt.learnt_reward

    def completions(own: Trajectories) -> list[dict[str, Any]]:
        told = [_plain(answer) for _, answer in domain.answers(own)]
        believed = [None] * len(told) if reward is None else (reward(own).cpu() * own.rewarded).sum(1).tolist()
        return [
            {"text": f"{text}{'' if over else ' …'}", "gold": true, "learnt": says}
            for text, over, true, says in zip(
                told, own.terminated.tolist(), domain.truth(own) or [None] * len(told), believed, strict=True
            )
        ]

    return {
        "title": learnt.title,
        "arbiter": domain.arbiter,
        "prompts": [_plain(asked) for asked, _ in domain.answers(speakers["now"])],
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
    table = markdown(("prompt", "", "completion", told["arbiter"], "learnt reward"), [_safe(line) for line in lines])
    return f"{head}Prompts that nobody learnt from. `…`: cut off before it ended.\n\n{table}"


def rewards(completion: dict[str, Any]) -> tuple[str, str]:
    """The true and the learnt reward of a completion, in words."""
    true, learnt = ("–" if one is None else number(one) for one in (completion["gold"], completion["learnt"]))
    return true, learnt


def _plain(text: str | Conversation) -> str:
    """A conversation with who says what; an answer alone as it is."""
    if isinstance(text, str):
        return text
    return text[0][1] if len(text) == 1 else "\n".join(f"{role}: {content}" for role, content in text)


def _safe(line: tuple[str, ...]) -> tuple[str, ...]:
    """A bar or a line break inside a cell would end it."""
    escaped = (cell.replace("|", "\\|").replace("<", "&lt;") for cell in line)
    return tuple("<br>".join(cell.splitlines()) for cell in escaped)
