"""score JUDGE FILE [flags]: how well a reward tells better answers from worse ones, in RewardBench's layouts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from experiments import command

if TYPE_CHECKING:
    from llm.judges import Judge


@dataclass(frozen=True, kw_only=True)
class Flags:
    """JUDGE is a run, whose learnt reward judges; the folder or hub name of a classifier with one label; or
    module:function, a function of prompts and answers. FILE has rows with prompt, chosen and rejected (texts, messages,
    or lists of texts: one right among several, or several that are right in the subset Ties)."""

    split: str = "train"
    """Which part of a dataset that has several."""
    which: Literal["latest", "best"] = "latest"
    """Of a run: the newest checkpoint, or the one with the best score."""
    allow_download: bool = False
    """Ask the hub for what is not on this machine."""
    out: str = ""
    """A JSON file for the numbers."""


def main(arguments: list[str]) -> None:
    (name, file), rest = command.split_words(arguments, ("judge", "file"), "score")
    config = command.flags(Flags, rest, "score JUDGE FILE")
    from experiments.scoring import questions, scored, show
    from experiments.summary import origin
    from unified_irl.environment import describe_environment
    from unified_irl.serialise import write_json

    some = questions(file, config.split, allow_download=config.allow_download)
    rows = scored(judge(name, config), some)
    show(f"{name} on {file}", rows)
    if config.out:
        write_json(Path(config.out), origin(describe_environment(command.typed())) | {"subsets": rows})


def judge(name: str, config: Flags) -> Judge:
    from llm.judges import RewardJudge, judge_called
    from unified_irl.errors import UserError

    if (Path(name) / "checkpoints").is_dir():
        from experiments.language_runs import load_language_run

        learnt = load_language_run(Path(name), config.which)
        if learnt.learnt_reward is None:
            raise UserError(f"{name} is a run of {learnt.config.method.name}, which learns no reward; give another.")
        return RewardJudge(learnt.learnt_reward, learnt.domain.spelt)
    return judge_called(name, config.allow_download, "cpu")
