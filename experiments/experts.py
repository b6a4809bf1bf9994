"""The run that makes the experts of a robot task, and what is taken from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from control import tuned
from control.config import ControlConfig
from experiments.train import TrainConfig, config_to_json, stored_config
from unified_irl.errors import UserError
from unified_irl.run_config import RunConfig
from unified_irl.tracking import TrackingConfig


def expert_config(name: str, seed: int, rounds: int) -> TrainConfig[ControlConfig]:
    """The settings of the run; 0 rounds are the usual number."""
    row = tuned.expert_row(name)
    if rounds:
        row = replace(row, phases=(replace(row.phases[0], rounds=rounds),))
    return TrainConfig(
        task=tuned.expert_settings(name),
        method=row,
        seed=seed,
        run=RunConfig(evaluate_every=10 if row.phases[0].rounds >= 1000 else 1, checkpoint_seconds=300.0, keep=1),
        tracking=TrackingConfig(),
    )


def train_experts(name: str, path: Path, seed: int, rounds: int, command: list[str]) -> None:
    """Begin the run, or go on with it where it stopped, as it was begun."""
    import torch

    from control.experts import ExpertDomain
    from unified_irl import run
    from unified_irl.learner import Learner
    from unified_irl.rundir import RunDirectory

    exists = (path / "config.json").exists()
    config = _begun(name, path, seed, rounds) if exists else expert_config(name, seed, rounds)
    torch.set_num_threads(config.run.threads)
    stored = config_to_json(name, config)
    with RunDirectory.open(path) if exists else RunDirectory.create(path, stored, command) as directory:
        if not directory.is_finished:
            learner = Learner(ExpertDomain(config.task, config.seed, path / "snapshots"), config.method, config.seed)
            run.train(learner, directory, config.run, config.tracking)


def _begun(name: str, path: Path, seed: int, rounds: int) -> TrainConfig[ControlConfig]:
    """The settings of a run that is there."""
    begun, config = stored_config(path)
    was, asked = f"{begun}, seed {config.seed}", f"{name}, seed {seed}"
    if rounds:
        was, asked = f"{was}, {config.method.phases[0].rounds} rounds", f"{asked}, {rounds} rounds"
    if was != asked:
        raise UserError(
            f"{path} was begun for {was}, but {asked} were asked for. Go on with the flags it was begun with, begin "
            "anew with another --out, or take what it has reached with --only-harvest."
        )
    return config


def harvest_experts(name: str, path: Path, into: Path, num_episodes: int, command: list[str]) -> dict[str, Any]:
    """Take the tiers and demonstrations from what the run has reached, and store them with where they come from."""
    from control.experts import harvest
    from unified_irl.environment import describe_environment

    facts = {"task": name, "environment": describe_environment(command)}
    return harvest(name, path / "snapshots", into, facts, num_episodes)
