"""How fast what is learnt approaches the demonstrator as demonstrations are added, where the reward is well specified.

Three learners see the same demonstrations: ML-IRL by the learner (own samples, an exact policy in every round), the
maximiser of the same likelihood by exact gradients (where the learner converges to), and behaviour cloning with one
free number per time, goal, node and move. A maximiser over d parameters errs as √(d/n) in total variation and as d/n in
KL. With few demonstrations that maximiser is at infinity now and then; a wide prior keeps the exact one finite, and the
learner's own finite run does the same for it.
Both distances are means per decision over the demonstrator's visits, from the contexts that demonstrations come from.
Those from the other contexts are recorded beside them: there, what a free table has not seen it cannot know.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from envs.walks.domain import WalksDomain, log_policy_of
from envs.walks.policy import TabularReward
from envs.walks.solve import divergence, total_variation, visitation
from experiments.science import exact
from experiments.science.configs import SamplesConfig
from unified_irl.descent_config import DescentConfig
from unified_irl.learner import Learner
from unified_irl.methods import method

LEARNERS = ("ml-irl", "ml-irl, exact", "bc, free")
DISTANCES = {"total_variation": -0.5, "kl": -1.0}


@exact.one_thread()
def run(config: SamplesConfig, report: Callable[[str], None]) -> dict[str, Any]:
    """Distances of every learner at every number of demonstrations, and their log-log slopes."""
    points = []
    for count in config.num_demonstrations:
        for seed in range(config.seeds):
            points += _learn(config, count, seed)
        report(f"{count} demonstrations")
    slopes: dict[str, dict[str, Any]] = {distance: {} for distance in DISTANCES}
    for distance, expected in DISTANCES.items():
        for learner in LEARNERS:
            own = [point for point in points if point["learner"] == learner]
            slopes[distance][learner] = fit = exact.fitted(own, "num_demonstrations", distance)
            report(f"{learner}: slope of {distance} {exact.shown(fit)}, theory {expected:g}")
    return {"points": points, "slopes": slopes, "expected_slopes": DISTANCES, "pseudo_count": config.pseudo_count}


def _learn(config: SamplesConfig, count: int, seed: int) -> list[dict[str, Any]]:
    world = replace(config.world, num_demonstrations=count)
    domain = WalksDomain(world, seed)
    row = replace(
        method("ml-irl").with_phases(rounds=config.rounds, policy_updates=world.horizon),
        beta=world.temperature,
        reward_descent=DescentConfig(learning_rate=config.learning_rate, schedule="cosine", total_steps=config.rounds),
    )
    learner = Learner(domain, row, seed)
    while not learner.finished:
        learner.round()
    assert learner.demonstrations is not None
    moves = exact.shown_moves(domain, learner.demonstrations.trajectories)
    tables = (
        log_policy_of(learner.policy),
        _maximiser(domain, moves, row.beta, ridge=1.0 / (count * config.prior**2)),
        _cloned(domain, moves * count, config),
    )
    expert = domain.world.expert.log_policy_HGNA
    points = []
    for name, table in zip(LEARNERS, tables, strict=True):
        point: dict[str, Any] = {"learner": name, "num_demonstrations": count, "seed": seed}
        for prefix, contexts in (("", domain.shown), ("unseen_", domain.unseen)):
            visits = visitation(domain.world.graph, expert, domain.world.starts(contexts))
            point[f"{prefix}total_variation"] = float(total_variation(expert, table, visits))
            point[f"{prefix}kl"] = float(divergence(expert, table, visits))
        points.append(point)
    return points


def _maximiser(domain: WalksDomain, moves_HGNA: torch.Tensor, beta: float, ridge: float) -> torch.Tensor:
    """log π of the linear reward that maximises the demonstrations' likelihood and prior."""
    row = replace(method("ml-irl"), beta=beta)
    reward = domain.build(row).reward
    assert isinstance(reward, TabularReward)
    solver = torch.optim.LBFGS(reward.scores.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        solver.zero_grad()
        penalty = sum(parameter.square().sum() for parameter in reward.scores.parameters())
        loss = exact.nll(domain, reward.scores.table(), moves_HGNA, beta) + 0.5 * ridge * penalty
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    solver.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return exact.optimal(domain, reward.scores.table(), beta).log_policy_HGNA


def _cloned(domain: WalksDomain, count_HGNA: torch.Tensor, config: SamplesConfig) -> torch.Tensor:
    """log π of the frequencies of moves, the uniform walker weighing as much as `pseudo_count` demonstrated moves."""
    prior = config.pseudo_count * domain.world.uniform_HGNA.exp()
    total = count_HGNA.sum(-1, keepdim=True) + config.pseudo_count
    possible = domain.world.graph.possible_NA
    return torch.where(possible, ((count_HGNA + prior) / total).log(), domain.world.uniform_HGNA)


def table(result: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The slope of every learner in both distances."""
    return ("distance", "learner", "slope [95 % interval]", "theory"), [
        (distance, learner, exact.shown(fit), f"{result['expected_slopes'][distance]:g}")
        for distance, fits in result["slopes"].items()
        for learner, fit in fits.items()
    ]


def plot(result: dict[str, Any], path: Path) -> Path:
    """Both distances side by side, with the slopes of theory."""
    from experiments.plots import store
    from experiments.science.figures import draw_log_log, panels

    figure, axes = panels(1, 2)
    for one, (distance, expected) in zip(axes.flat, result["expected_slopes"].items(), strict=True):
        name = {-0.5: "slope −1/2", -1.0: "slope −1"}[expected]
        draw_log_log(
            one,
            result["points"],
            group="learner",
            x="num_demonstrations",
            y=distance,
            slopes=result["slopes"][distance],
            references={expected: name},
        )
        labels = {
            "total_variation": "total variation per decision",
            "kl": "KL(demonstrator ‖ learnt) per decision, nats",
        }
        one.set(xlabel="demonstrations", ylabel=labels[distance])
    figure.suptitle("Distance to the demonstrator, well-specified linear reward")
    return store(figure, path)
