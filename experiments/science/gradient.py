"""The gradient that the core computes from samples, against the exact gradient of the likelihood.

The root mean square error of a mean of n independent terms is σ n^(−1/2), exactly. That it goes on falling at that
rate, and not to some floor, says that the sampled gradient has no bias: no step too many, no discount out of place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from envs.walks.domain import WalksDomain
from envs.walks.policy import TabularReward
from experiments.science import exact
from experiments.science.configs import GradientConfig
from unified_irl.batch import Batch
from unified_irl.feed import stream
from unified_irl.joint import joint_loss
from unified_irl.methods import method
from unified_irl.statistics import slope


@exact.one_thread()
def run(config: GradientConfig, report: Callable[[str], None]) -> dict[str, Any]:
    """Relative errors of sampled gradients, and the log-log slope of their root mean square over seeds.

    All draws are independent, those for different numbers of samples too, so the fit's own interval holds.
    """
    points = [point for kind in config.kinds for point in _errors(config, kind, report)]
    slopes = {}
    for kind in config.kinds:
        rms = [
            math.sqrt(fmean(one["error"] ** 2 for one in points if (one["kind"], one["num_samples"]) == (kind, count)))
            for count in config.num_samples
        ]
        fit = slope(config.num_samples, rms)
        report(f"{kind}: slope {fit}")
        slopes[kind] = asdict(fit)
    return {"points": points, "slopes": slopes, "expected_slope": -0.5, "gamma": config.gamma}


def _errors(config: GradientConfig, kind: str, report: Callable[[str], None]) -> list[dict[str, Any]]:
    domain = WalksDomain(replace(config.world, reward=kind), seed=0)  # type: ignore[arg-type]
    row = replace(method("ml-irl"), beta=config.world.temperature, gamma=config.gamma)
    reward = domain.build(row).reward
    assert isinstance(reward, TabularReward)
    parameters = list(reward.scores.parameters())
    with torch.no_grad():
        for parameter in parameters:
            parameter.normal_(0.0, config.spread, generator=stream(0, "science", kind))
        own = exact.optimal(domain, reward.scores.table(), row.beta, row.gamma)
    expert = domain.world.expert
    moves = exact.expected_moves(domain, expert, row.gamma)
    true_gradient = exact.nll_gradient(domain, reward.scores, moves, row.beta, row.gamma)
    loss = joint_loss(row, row.phases[0], log_prob=own.log_prob, demonstration_reward=reward, preference_reward=None)
    points = []
    for count in config.num_samples:
        for seed in range(config.seeds):
            draw = stream(seed, "science", kind, count)
            contexts = domain.contexts[torch.randint(len(domain.contexts), (count,), generator=draw)]
            batch = Batch(demonstrations=expert.sample(contexts, draw), own=own.sample(contexts, draw))
            found = exact.flat(torch.autograd.grad(loss(batch, batch.normaliser())[0], parameters))
            error = float((found - true_gradient).norm() / true_gradient.norm())
            points.append({"kind": kind, "num_samples": count, "seed": seed, "error": error})
        report(f"{kind}: {count} samples")
    return points


def table(result: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The slope of every kind of reward."""
    return ("reward", "slope of the error [95 % interval]", "theory"), [
        (kind, exact.shown(fit), f"{result['expected_slope']:g}") for kind, fit in result["slopes"].items()
    ]


def plot(result: dict[str, Any], path: Path) -> Path:
    """Every error, their root mean square per sample size, and the slope −1/2."""
    from experiments.science.figures import log_log

    return log_log(
        result["points"],
        group="kind",
        x="num_samples",
        y="error",
        slopes=result["slopes"],
        references={-0.5: "slope −1/2"},
        labels=("demonstrations, and as many own samples", "relative error of the gradient"),
        title="Sampled gradients against the exact one (root mean squares)",
        centre=lambda errors: float(np.sqrt(np.mean(errors**2))),
        path=path,
    )
