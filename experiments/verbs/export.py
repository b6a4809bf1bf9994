"""export RUN DIRECTORY [flags]: what a run has learnt, as files that other libraries read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from experiments import command
from unified_irl.errors import UserError

OURS = {
    "robots": ("policy.zip", "reward.safetensors", "README.md"),
    "language": ("policy", "adapter", "reward"),
}
"""What an export writes into its directory."""


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Of a robot's run: policy.zip for Stable-Baselines3, reward.safetensors where the method learns a reward of its
    own, and README.md, which shows how to use them. Of a language run: the folders policy, and reward where its form
    allows, for transformers, each with its model card."""

    which: Literal["latest", "best"] = "latest"
    """The newest checkpoint, or the one with the best score."""
    overwrite: bool = False
    """Replace what an earlier export left in the directory."""
    form: Literal["merged", "adapter"] = "merged"
    """Of a language model: a model of its own, or the folder adapter, with what a LoRA run adds to its base, for peft.
    """
    push: str = ""
    """Of a language model: also put the policy into this repository of the hub (owner/name), for which `hf auth login`
    must have been called. Nothing leaves this machine otherwise."""


def main(arguments: list[str]) -> None:
    (run, directory), rest = command.split_words(arguments, ("run", "directory"), "export")
    config = command.flags(Flags, rest, "export RUN DIRECTORY")
    from control.config import ControlConfig
    from experiments.train import stored_config
    from llm.config import LanguageConfig

    place = Path(directory)
    task_name, trained = stored_config(Path(run))
    kind = "robots" if isinstance(trained.task, ControlConfig) else "language"
    there = [name for name in OURS[kind] if (place / name).exists()]
    if there and not config.overwrite:
        raise UserError(f"{place} already holds {', '.join(there)}. Choose another directory, or say --overwrite.")
    if isinstance(trained.task, LanguageConfig):
        from experiments.language_export import export

        export(Path(run), place, config.which, config.form, config.push)
    elif isinstance(trained.task, ControlConfig):
        from experiments.robot_export import export as export_robot

        export_robot(Path(run), place, config.which)
    else:
        raise UserError(
            f"{run} is a run of {task_name}, which has no form that other libraries know. What can be exported there "
            "is its feedback, with `unified-irl collect`; what was learnt lies in the run's checkpoints as safetensors."
        )
