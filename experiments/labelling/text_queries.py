"""Where prompts and completions come from: a task's people, a base model, or a run's policy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from envs.language.people import ATTEMPTS, among, drawn
from experiments.labelling.config import LabelFlags
from experiments.labelling.folder import Made, Query
from experiments.labelling.texts import CANDIDATES, after
from experiments.language_runs import load_language_run
from llm.data import records
from llm.domain import LanguageDomain
from llm.written import WrittenDomain
from unified_irl.errors import UserError
from unified_irl.feed import stream
from unified_irl.feedback import Preferences, Provenance
from unified_irl.feedback_files import save_preferences
from unified_irl.trajectories import Trajectories

Domain = LanguageDomain | WrittenDomain
Say = Callable[[Tensor, Generator], Trajectories]
"""What somebody says to prompts, told by their numbers."""


def of_task(domain: Domain, flags: LabelFlags, folder: Path) -> Made:
    """What the task's settings compare: its own people of mixed quality, or samples of the base model."""
    if flags.mode == "demonstrate":
        return _prompts(domain, flags)
    say, who = _speaker(domain, domain.start.sample), "samples of the base model"
    if isinstance(domain, LanguageDomain) and domain.config.people.compared == "task":
        say, who = _people(domain), "people of mixed quality"
    return _pairs(domain, say, say, who, flags, folder)


def of_run(path: Path, flags: LabelFlags, folder: Path) -> Made:
    """What the policy says twice, or what it says now and what it said at first."""
    learnt = load_language_run(path, flags.which)
    domain = learnt.domain
    if flags.mode == "demonstrate":
        return _prompts(domain, flags)
    now = _speaker(domain, learnt.policy.sample)
    before = _speaker(domain, domain.start.sample) if flags.against == "start" else now
    return _pairs(domain, now, before, learnt.title, flags, folder)


def _prompts(domain: Domain, flags: LabelFlags) -> Made:
    """Prompts that may be demonstrated."""
    draw = stream(flags.seed, "label", "prompts")
    if isinstance(domain, LanguageDomain):
        numbers = among(domain.task, "demonstrable")
        numbers = drawn(numbers, min(flags.count, len(numbers)), draw).tolist()
        prompts: list[records.Prompt] = [domain.task.prompts[number] for number in numbers]
    else:
        chosen = torch.randperm(len(domain.contexts), generator=draw)[: flags.count]
        numbers, prompts = chosen.tolist(), domain.contexts.texts(chosen)
    queries = [
        {"prompt": records.as_json(one), "context": number} for one, number in zip(prompts, numbers, strict=True)
    ]
    return Made(kind="texts", facts={"mode": "demonstrate"}, queries=queries)


def _speaker(domain: Domain, sample: Callable[[Any, Generator], Trajectories]) -> Say:
    return lambda prompts, draw: sample(domain.contexts[prompts], draw)


def _people(domain: LanguageDomain) -> Say:
    def say(prompts: Tensor, draw: Generator) -> Trajectories:
        said = domain.task.propose(prompts, draw)
        return domain.codec.trajectories(domain.contexts[prompts], said, [True] * len(said))

    return say


@torch.no_grad()
def _pairs(domain: Domain, one: Say, other: Say, who: str, flags: LabelFlags, folder: Path) -> Made:
    """Pairs that differ. Of a named task their tokens are kept too."""
    draw = stream(flags.seed, "label", "pairs")
    numbers = torch.arange(len(domain.contexts))
    if isinstance(domain, LanguageDomain):
        numbers = among(domain.task, "comparable")
    queries: list[Query] = []
    parts: list[tuple[Trajectories, Trajectories]] = []
    for _ in range(ATTEMPTS):
        if (missing := flags.count - len(queries)) == 0:
            break
        prompts = drawn(numbers, missing, draw)
        sides = [say(prompts, draw) for say in (one, other)]
        told = list(zip(*(_told(domain, side) for side in sides), strict=True))
        differ = [k for k, (first, second) in enumerate(told) if first != second]
        queries += [_query(*told[k]) for k in differ]
        if differ:
            parts.append((sides[0][torch.tensor(differ)], sides[1][torch.tensor(differ)]))
    if not queries:
        raise UserError("All completions look alike, so there is nothing to compare; choose others to be shown.")
    if isinstance(domain, LanguageDomain):
        first, second = (Trajectories.cat([part[side] for part in parts]) for side in (0, 1))
        _keep(folder / CANDIDATES, first, second, f"{domain.task.name}: {who}")
    return Made(kind="texts", facts={"mode": "compare"}, queries=queries)


def _keep(path: Path, first: Trajectories, second: Trajectories, who: str) -> None:
    count = len(first)
    candidates = Preferences(
        first=first,
        second=second,
        label=torch.full((count,), 0.5),
        margin=torch.zeros(count),
        maker=torch.zeros(count, dtype=torch.long),
        makers=(Provenance(maker=who),),
    )
    save_preferences(path, candidates)


Told = tuple[records.Prompt, records.Reply, bool]
"""What was asked, what was said, and whether it was cut off."""


def _told(domain: Domain, own: Trajectories) -> list[Told]:
    cut = (~own.terminated).tolist()
    if not isinstance(domain, LanguageDomain):
        return [(*one, is_cut) for one, is_cut in zip(domain.answers(own), cut, strict=True)]
    prompts = [domain.task.prompts[number] for number in own.context_id.tolist()]
    texts, _ = domain.codec.texts(own)
    return [(prompt, after(prompt, text), is_cut) for prompt, text, is_cut in zip(prompts, texts, cut, strict=True)]


def _query(first: Told, second: Told) -> Query:
    return {
        "prompt": records.as_json(first[0]),
        "first": records.as_json(first[1]),
        "second": records.as_json(second[1]),
        "cut": [first[2], second[2]],
    }
