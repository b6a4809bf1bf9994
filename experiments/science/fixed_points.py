"""What each link converges to, in a world of so few walks that every expectation is a sum over all of them.

Distances are over whole walks: the largest |log π(τ) − log π'(τ)|. Where a normalisation constant is of no interest the
mean over the walks of a context is taken off first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from envs.walks.domain import WalksDomain
from envs.walks.enumerate import every_pair, every_walk
from envs.walks.policy import TabularPolicy, TabularReward, Walker
from experiments.science import exact
from experiments.science.configs import FixedPointsConfig
from unified_irl.batch import Batch
from unified_irl.contracts import LossFunction, Sampler
from unified_irl.descent_config import DescentConfig
from unified_irl.feedback import Preferences, Provenance
from unified_irl.implicit import ImplicitReward
from unified_irl.joint import joint_loss
from unified_irl.methods import Method, method
from unified_irl.trajectories import Trajectories

FAR = 5.0
"""Log-errors beyond which a diverging series is not followed: walks that rare carry no weight in double precision."""
FLOOR = 1e-7
"""What the solver's last digits leave of a log-error; the figure ends here."""


class Everything:
    """A world with all its walks, who walks like the demonstrator, and who walks anywhere."""

    def __init__(self, config: FixedPointsConfig) -> None:
        self.domain = WalksDomain(config.world, seed=0)
        world = self.domain.world
        self.expert, self.uniform = world.expert, Walker(world.graph, world.uniform_HGNA.contiguous())
        self.walks = every_walk(world.graph, config.world.horizon, self.domain.contexts, self.uniform)
        self.true_return_B = (world.true_rewards(self.walks) * self.walks.rewarded).sum(1)

    def by(self, walker: Sampler) -> Trajectories:
        """All walks, weighted by their probability under the walker."""
        return replace(self.walks, weight=self.log_prob(walker).exp() / len(self.domain.contexts))

    @torch.no_grad()
    def log_prob(self, walker: Sampler) -> Tensor:
        """log π(τ) of every walk."""
        return walker.log_prob(self.walks).sum(1)

    def distance(self, first: Sampler, second: Sampler) -> float:
        return float((self.log_prob(first) - self.log_prob(second)).abs().max())

    def log_error(self, walker: Sampler, target: Sampler) -> Tensor:
        """log π(τ)/π_target(τ) less its mean in each context."""
        return self.centred(self.log_prob(walker) - self.log_prob(target))

    def centred(self, value_B: Tensor) -> Tensor:
        total = value_B.new_zeros(len(self.domain.contexts))
        count = total.index_add(0, self.walks.context_id, torch.ones_like(value_B))
        return value_B - (total.index_add(0, self.walks.context_id, value_B) / count)[self.walks.context_id]

    def kl(self, walker: Sampler) -> float:
        """KL(demonstrator ‖ policy) of whole walks, in nats."""
        log_expert = self.log_prob(self.expert)
        return float((log_expert.exp() * (log_expert - self.log_prob(walker))).sum() / len(self.domain.contexts))

    def optimal(self, reward_HGNA: Tensor, beta: float) -> Walker:
        return exact.optimal(self.domain, reward_HGNA.detach(), beta)


@exact.one_thread()
def run(config: FixedPointsConfig, report: Callable[[str], None]) -> dict[str, Any]:
    """The table of links and the series behind its figure."""
    world = Everything(config)
    parts: list[dict[str, Any]] = []
    for name, measure in (
        ("likelihood and linear", _likelihood_and_linear),
        ("pairwise, explicit reward", _pairwise_explicit),
        ("self-play", _self_play),
        ("preferences", _preferences),
        ("stale own samples", _stale),
    ):
        parts.append(measure(world, config))
        for row in parts[-1]["rows"]:
            report(f"{name}: {row['link']}: {row['fixed_point']}; off by {_number(row['distance'])}")
    rows = [row for part in parts for row in part.pop("rows")]
    return {"rows": rows, **{key: series for part in parts for key, series in part.items()}}


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"


def _row(link: str, beta: float, fixed_point: str, distance: float | None, kl: float) -> dict[str, Any]:
    """One line of the table: the distance is from what was predicted (None: nothing to be near), the KL from the
    demonstrator."""
    return {"link": link, "beta": beta, "fixed_point": fixed_point, "distance": distance, "kl_expert": kl}


def _loss(row: Method, policy: Sampler, reward: Callable[[Trajectories], Tensor] | None) -> LossFunction:
    return joint_loss(
        row, row.phases[0], log_prob=policy.log_prob, demonstration_reward=reward, preference_reward=reward
    )


def _minimise(parameters: Iterable[Parameter], value: Callable[[], Tensor]) -> None:
    """Quasi-Newton descent to the last digits; `value` leaves the gradient in the parameters."""
    solver = torch.optim.LBFGS(
        list(parameters),
        max_iter=1000,
        history_size=50,
        tolerance_grad=1e-11,
        tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        solver.zero_grad()
        return value()

    solver.step(closure)  # type: ignore[no-untyped-call]


def _solve(parameters: Iterable[Parameter], loss: LossFunction, batch: Batch) -> None:
    """The minimum of a loss on fixed data."""

    def value() -> Tensor:
        total, _ = loss(batch, batch.normaliser())
        total.backward()  # type: ignore[no-untyped-call]
        return total.detach()

    _minimise(parameters, value)


def _policy(world: Everything, row: Method) -> TabularPolicy:
    policy = world.domain.build(row).policy
    assert isinstance(policy, TabularPolicy)
    return policy


def _reward(world: Everything, row: Method) -> TabularReward:
    reward = world.domain.build(row).reward
    assert isinstance(reward, TabularReward)
    return reward


def _frozen(policy: TabularPolicy) -> Walker:
    return Walker(policy.graph, policy.log_policy().detach().contiguous())


def _likelihood_and_linear(world: Everything, config: FixedPointsConfig) -> dict[str, Any]:
    """Cloning, and ML-IRL with the exact policy of every reward on the way: both reach the demonstrator."""
    shown, beta = world.by(world.expert), config.world.temperature
    clone = method("bc")
    cloned = _policy(world, clone)
    _solve(cloned.scores.parameters(), _loss(clone, cloned, None), Batch(demonstrations=shown))
    row = replace(method("ml-irl"), beta=beta)
    reward = _reward(world, row)
    loss, moves = _loss(row, world.uniform, reward), exact.shown_moves(world.domain, shown)

    def value() -> Tensor:
        walker = world.optimal(reward.scores.table(), beta)
        batch = Batch(demonstrations=shown, own=world.by(walker))
        loss(batch, batch.normaliser())[0].backward()  # type: ignore[no-untyped-call]
        return -(moves * walker.log_policy_HGNA).sum()

    _minimise(reward.scores.parameters(), value)
    learnt = {"likelihood (bc)": _frozen(cloned), "linear (ml-irl)": world.optimal(reward.scores.table(), beta)}
    return {
        "rows": [
            _row(link, beta, "the demonstrator", world.distance(walker, world.expert), world.kl(walker))
            for link, walker in learnt.items()
        ]
    }


def _pairwise_explicit(world: Everything, config: FixedPointsConfig) -> dict[str, Any]:
    """Turns of the pairwise link: the reward solved for the policy's walks, then the policy for the reward.

    A full turn multiplies the log-distance from the mixture π_ref^{β/(1+β)} π_E^{1/(1+β)} by −1/β. Half-way turns, in
    which the reward moves by the share β/(1+β)/2, multiply it by ½ at every β.
    """
    rows, series = [], []
    for beta in config.betas:
        log_ratio = world.expert.log_policy_HGNA - world.uniform.log_policy_HGNA
        mixture = world.optimal(beta / (1.0 + beta) * log_ratio, beta)
        for share in (1.0, 0.5 * beta / (1.0 + beta)):
            row = replace(method("rft"), beta=beta)
            reward = _reward(world, row)
            weight = reward.scores.table()
            errors, walker = [], world.optimal(weight, beta)
            for _ in range(config.turns if share < 1.0 else config.rounds):
                errors.append(float(world.log_error(walker, mixture).abs().max()))
                if errors[-1] > FAR:
                    break
                before = weight.detach().clone()
                shown, did = every_pair(world.by(world.expert), world.by(walker))
                _solve(reward.scores.parameters(), _loss(row, walker, reward), Batch(demonstrations=shown, own=did))
                with torch.no_grad():
                    weight.copy_(before.lerp(weight, share))
                walker = world.optimal(weight, beta)
            else:
                errors.append(float(world.log_error(walker, mixture).abs().max()))
            predicted = -1.0 / beta if share == 1.0 else 0.5
            series.append({"beta": beta, "share": share, "factor": predicted, "errors": errors})
        target = "the mixture π_ref^(β/(1+β)) π_E^(1/(1+β))"
        rows.append(_row("pairwise, explicit (rft)", beta, target, world.distance(walker, mixture), world.kl(walker)))
    return {"rows": rows, "turns": series}


def _self_play(world: Everything, config: FixedPointsConfig) -> dict[str, Any]:
    """Pairwise on the implicit reward against the previous self, each round solved: log-errors times 1 − 1/β."""
    rows, series = [], []
    for beta in config.self_play_betas:
        row = replace(method("spin"), beta=beta)
        policy, previous = _policy(world, row), world.uniform
        started = world.log_error(previous, world.expert)
        errors, off = [float(started.abs().max())], 0.0
        for number in range(config.rounds):
            if errors[-1] > FAR:
                break
            shown, did = every_pair(world.by(world.expert), world.by(previous))
            reward = ImplicitReward(policy, previous, beta)
            _solve(policy.scores.parameters(), _loss(row, policy, reward), Batch(demonstrations=shown, own=did))
            previous = _frozen(policy)
            error = world.log_error(previous, world.expert)
            errors.append(float(error.abs().max()))
            predicted = (1.0 - 1.0 / beta) ** (number + 1) * started
            off = max(off, float((error - predicted).abs().max()))
        series.append({"beta": beta, "factor": 1.0 - 1.0 / beta, "errors": errors})
        target = f"log-error × ({1.0 - 1.0 / beta:.3g})^k: " + (
            "the demonstrator" if beta > 0.5 else "swings for ever" if beta == 0.5 else "diverges"
        )
        rows.append(_row("pairwise, implicit, previous self (spin)", beta, target, off, world.kl(previous)))
    return {"rows": rows, "self_play": series}


def _preferences(world: Everything, config: FixedPointsConfig) -> dict[str, Any]:
    """Comparisons of a Bradley-Terry labeller, of rationality ρ, on the implicit reward.

    Against the start the minimum is π ∝ π_ref exp(ρ R/β). Against the previous self every round adds ρ R/β to the
    log-probability again, so that after k rounds π ∝ π_ref exp(k ρ R/β): there is no fixed point.
    """
    beta, rationality = 1.0, config.rationality
    first, second = every_pair(world.walks, world.walks)
    true_reward = world.domain.world.true_rewards
    gap_B = ((true_reward(first) * first.rewarded) - (true_reward(second) * second.rewarded)).sum(1)
    compared = Preferences(
        first=first,
        second=second,
        label=torch.sigmoid(rationality * gap_B),
        margin=torch.zeros_like(gap_B),
        maker=torch.zeros_like(first.context_id),
        makers=(Provenance(maker="every walk"),),
    )
    row = replace(method("dpo"), beta=beta)
    wanted = world.centred(rationality / beta * world.true_return_B)
    rows, series = [], {"previous": [0.0], "start": [0.0], "predicted": [0.0]}
    for reference in ("start", "previous"):
        policy, against = _policy(world, row), world.uniform
        for number in range(1, config.rounds + 1):
            reward = ImplicitReward(policy, against, beta)
            _solve(policy.scores.parameters(), _loss(row, policy, reward), Batch(preferences=compared))
            against = _frozen(policy) if reference == "previous" else against
            drift = world.log_error(_frozen(policy), world.uniform)
            series[reference].append(float(drift.abs().max()))
            times = number if reference == "previous" else 1
            off = float((drift - times * wanted).abs().max())
        times_k = "k " if reference == "previous" else ""
        target = f"π_ref exp({times_k}ρR/β)" + (": none, it drifts" if reference == "previous" else "")
        rows.append(_row(f"preferences, implicit, {reference}", beta, target, off, world.kl(_frozen(policy))))
    series["predicted"] += [number * float(wanted.abs().max()) for number in range(1, config.rounds + 1)]
    return {"rows": rows, "drift": series}


def _stale(world: Everything, config: FixedPointsConfig) -> dict[str, Any]:
    """The linear link on the implicit reward: with fresh own walks it is cloning, with stale ones it has no minimum.

    Stale, it is E_old[log π] − E_demos[log π] up to a constant: the policy may forget what it did as fast as it likes.
    """
    row = Method(
        name="linear, implicit",
        summary="the linear link on the implicit reward",
        reward="implicit",
        phases=(replace(method("ml-irl").phases[0], policy_updates=0),),
        beta=1.0,
        policy_descent=DescentConfig(optimiser="adam", learning_rate=0.05),
    )
    rows, series = [], {}
    for age in ("fresh", "stale"):
        policy = _policy(world, row)
        loss = _loss(row, policy, ImplicitReward(policy, world.uniform, row.beta))
        shown, own = world.by(world.expert), world.by(world.uniform)
        losses, kls = [], []
        for _ in range(config.steps):
            if age == "fresh":
                own = world.by(policy.walker())
            kls.append(world.kl(policy.walker()))
            batch = Batch(demonstrations=shown, own=own)
            losses.append(float(policy.descend(loss, batch, batch.normaliser())["loss"]))
        series[age] = {"losses": losses, "kl_expert": kls}
        walker = policy.walker()
        target = "the demonstrator" if age == "fresh" else f"none, unbounded below: loss {losses[-1]:.3g}"
        off = world.distance(walker, world.expert) if age == "fresh" else None
        rows.append(_row(f"linear, implicit, {age} own samples", 1.0, target, off, world.kl(walker)))
    return {"rows": rows, "linear_implicit": series}


def table(result: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    headings = ("link", "β", "predicted", "largest distance from it", "KL(demonstrator ‖ learnt)")
    return headings, [
        (row["link"], f"{row['beta']:g}", row["fixed_point"], _number(row["distance"]), f"{row['kl_expert']:.3g}")
        for row in result["rows"]
    ]


def plot(result: dict[str, Any], path: Path) -> Path:
    """Self-play and turns per round beside their predicted factors, the drift of preferences, and stale samples."""
    from experiments.plots import store
    from experiments.science.figures import panels

    figure, axes = panels(2, 2)
    _draw_factors(axes[0, 0], result["self_play"], "β = {}: factor {}")
    axes[0, 0].legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 0.1))
    axes[0, 0].set(xlabel="self-play round", ylabel="largest log-error", title="Pairwise, implicit, previous self")
    full = [one for one in result["turns"] if one["share"] == 1.0]
    half = [one for one in result["turns"] if one["share"] < 1.0]
    _draw_factors(axes[0, 1], full, "full turns, β = {}: factor {}")
    length = max(len(one["errors"]) for one in full)
    short = [{**one, "errors": one["errors"][:length]} for one in half[:1]]
    _draw_factors(axes[0, 1], short, "half-way turns, β = {}: factor {}", first=len(full))
    axes[0, 1].set(
        xlabel="turn (reward solved, policy solved)",
        ylabel="largest log-distance from the mixture",
        title="Pairwise, explicit reward",
    )
    drift = result["drift"]
    axes[1, 0].plot(drift["previous"], "o-", color="C3", label="reference: previous self")
    axes[1, 0].plot(drift["start"], "s-", color="C0", label="reference: the start")
    axes[1, 0].plot(drift["predicted"], "--", color="0.3", linewidth=1.2, label="predicted: k times the first round")
    axes[1, 0].set(xlabel="round k", ylabel="largest |log π/π_start|", title="Preferences, implicit")
    axes[1, 0].legend(frameon=False, fontsize=8)
    for name, colour in (("stale", "C3"), ("fresh", "C0")):
        axes[1, 1].plot(result["linear_implicit"][name]["losses"], color=colour, label=f"{name} own samples")
    axes[1, 1].set(xlabel="descent step", ylabel="loss", title="Linear, implicit")
    axes[1, 1].legend(frameon=False, fontsize=8)
    return store(figure, path)


def _draw_factors(axes: Any, series: list[dict[str, Any]], label: str, first: int = 0) -> None:
    """Measured points, and the dashed line that starts where they do and follows the predicted factor."""
    for number, one in enumerate(series, start=first):
        errors, colour = one["errors"], f"C{number}"
        rounds = range(len(errors))
        name = label.format(f"{one['beta']:g}", f"{one['factor']:.3g}".replace("-", "−"))
        axes.plot(rounds, [max(error, FLOOR) for error in errors], "o", color=colour, markersize=5, label=name)
        predicted = [max(errors[0] * abs(one["factor"]) ** turn, FLOOR) for turn in rounds]
        axes.plot(rounds, predicted, "--", color=colour, linewidth=1.2)
    axes.set(yscale="log")
    axes.legend(frameon=False, fontsize=8, loc="lower left")
