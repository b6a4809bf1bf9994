"""What a language run's policy says, as a page for people."""

from __future__ import annotations

from pathlib import Path

import torch

from experiments.language_runs import load_language_run
from experiments.show import markdown
from llm.domain import LanguageDomain
from unified_irl.errors import UserError
from unified_irl.feed import stream
from unified_irl.trajectories import Trajectories


@torch.no_grad()
def page(run: Path, which: str, count: int, seed: int) -> str:
    """Markdown: for every prompt what the base model said, what the policy says at random and at its likeliest."""
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

    def cells(own: Trajectories) -> list[tuple[str, str, str]]:
        texts, ended = domain.codec.texts(own)
        gold = domain.task.gold(prompts, texts, ended).tolist()
        learnt = [float("nan")] * count if reward is None else (reward(own).cpu() * own.rewarded).sum(1).tolist()
        return [
            (f"{text}{'' if over else ' …'}", f"{true:.3f}", "–" if reward is None else f"{says:.3f}")
            for text, over, true, says in zip(texts, ended, gold, learnt, strict=True)
        ]

    columns = {who: cells(own) for who, own in speakers.items()}
    lines = [
        (prompt if who == "at first" else "", who, *columns[who][number])
        for number, prompt in enumerate(domain.task.prompts[one] for one in prompts.tolist())
        for who in speakers
    ]
    head = f"# {learnt.title}\n\n"
    table = markdown(("prompt", "", "completion", "true reward", "learnt reward"), [_safe(line) for line in lines])
    return f"{head}Prompts that nobody demonstrated. `…`: cut off before it ended.\n\n{table}"


def _safe(line: tuple[str, ...]) -> tuple[str, ...]:
    """A bar inside a cell would end it."""
    return tuple(cell.replace("|", "\\|").replace("<", "&lt;") for cell in line)
