"""The loss code against the exact answers of a world small enough to write down every walk in it.

Five nodes, two goals, three or four steps: at most 366 walks. Expectations are sums over them, so what is compared here
is equal up to rounding, not up to noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cached_property

import pytest
import torch
from torch import Tensor, nn

from envs.walks.config import Kind, WalksConfig
from envs.walks.domain import WalksDomain
from envs.walks.enumerate import every_pair, every_walk
from envs.walks.policy import TabularPolicy, Walker
from envs.walks.solve import soft_value_iteration, visitation
from unified_irl.batch import Batch
from unified_irl.contracts import Metrics, Parts, Sampler
from unified_irl.descent_config import DescentConfig
from unified_irl.feedback import Demonstrations, Preferences, Provenance
from unified_irl.implicit import ImplicitReward
from unified_irl.joint import joint_loss
from unified_irl.learner import Learner
from unified_irl.methods import Method, Phase, method
from unified_irl.objectives import returns
from unified_irl.statistics import slope
from unified_irl.trajectories import Contexts, Trajectories

torch.set_num_threads(1)

KINDS: tuple[Kind, ...] = ("free", "linear", "network")
MAKERS = (Provenance(maker="by hand"),)


def world(**changes: object) -> WalksConfig:
    small = {"num_nodes": 5, "num_neighbours": 2, "num_goals": 2, "horizon": 4, "temperature": 0.7, "reward_width": 4}
    return WalksConfig(**{"policy": "free", **small, **changes})  # type: ignore[arg-type]


def row(link: str, beta: float = 0.6, gamma: float = 1.0, reward: str = "explicit", **phase: object) -> Method:
    """A method of one phase with the given demonstration link."""
    return Method(
        name="by hand",
        summary="a row of the table for one test",
        reward=reward,  # type: ignore[arg-type]
        phases=(Phase(name="one", demonstration=link, **phase),),  # type: ignore[arg-type]
        beta=beta,
        gamma=gamma,
        reward_descent=DescentConfig(optimiser="sgd", learning_rate=1.0),
    )


class Enumerated(WalksDomain):
    """The graph world without chance: the expert shows every walk there is, and the policy answers with every walk."""

    @cached_property
    def demonstrations(self) -> Demonstrations:
        return everything(self, self.world.expert)

    def build(self, method: Method) -> Parts:
        parts = super().build(method)
        assert isinstance(parts.policy, TabularPolicy)
        old = parts.policy
        policy = EnumeratingPolicy(old.graph, old.horizon, old.scores, method.policy_descent, old.policy_step)
        policy.pairs = self.contexts
        return replace(parts, policy=policy)


class EnumeratingPolicy(TabularPolicy):
    """A policy that hands back every walk, weighted by its probability, where others hand back samples."""

    pairs: Contexts

    def improve(self, *arguments: object, **more: object) -> tuple[Metrics, Trajectories]:
        metrics, _ = super().improve(*arguments, **more)  # type: ignore[arg-type]
        return metrics, every_walk(self.graph, self.horizon, self.pairs, self.walker())


def everything(domain: WalksDomain, walker: Walker, weight: Tensor | None = None) -> Demonstrations:
    """Every walk as a demonstration, with its probability under the walker as weight unless other weights are given."""
    walks = every_walk(domain.world.graph, domain.config.horizon, domain.contexts, walker)
    walks = walks if weight is None else replace(walks, weight=weight)
    return Demonstrations(trajectories=walks, maker=torch.zeros(len(walks), dtype=torch.long), makers=MAKERS)


def random_weights(walks: Trajectories, seed: int = 0) -> Tensor:
    """Positive weights of no Markov policy, the same total for every context."""
    weight = 0.2 + torch.rand(len(walks), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    total = torch.zeros(int(walks.context_id.max()) + 1, dtype=torch.float64).index_add(0, walks.context_id, weight)
    return weight / total[walks.context_id] / len(total)


def scramble(module: nn.Module, seed: int = 0, scale: float = 0.5) -> None:
    """Random parameters: a point at which no term of a gradient vanishes by symmetry."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, scale, generator=draw)


def reference_of(domain: WalksDomain) -> Walker:
    return Walker(domain.world.graph, domain.world.uniform_HGNA.contiguous())


def optimal(domain: WalksDomain, reward_HGNA: Tensor, beta: float, gamma: float = 1.0) -> Walker:
    """The policy that is optimal for a reward table; differentiable in it."""
    table, _ = soft_value_iteration(
        domain.world.graph, reward_HGNA, domain.world.uniform_HGNA, beta, gamma, domain.config.horizon
    )
    return Walker(domain.world.graph, table)


def log_likelihood(walker: Sampler, walks: Trajectories, gamma: float = 1.0) -> Tensor:
    """E[Σ γ^t log π(a_t|s_t)] over weighted walks."""
    return (walks.weight * returns(walker.log_prob(walks), walks.discount(gamma))).sum() / walks.weight.sum()


def log_share(walker: Sampler, walks: Trajectories) -> Tensor:
    """log π(τ) of whole walks."""
    return walker.log_prob(walks).sum(1)


def flat(tensors: Iterable[Tensor | None]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors if tensor is not None])


def minimise(parameters: Iterable[nn.Parameter], value: Callable[[], Tensor], num_iterations: int = 2000) -> None:
    """Newton-like descent to the last digits. `value` leaves the gradient in the parameters and returns the loss."""
    parameters = list(parameters)
    solver = torch.optim.LBFGS(
        parameters,
        max_iter=num_iterations,
        history_size=50,
        tolerance_grad=1e-11,
        tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        solver.zero_grad(set_to_none=True)
        return value()

    solver.step(closure)


# The gradient of the likelihood


def exact_gradients(
    domain: WalksDomain, reward: nn.Module, shown: Trajectories, beta: float, gamma: float
) -> tuple[Tensor, Tensor]:
    """∇ of the demonstrations' negative log-likelihood under the optimal policy: autograd, central differences."""

    def nll() -> Tensor:
        return -log_likelihood(optimal(domain, reward.table(), beta, gamma), shown, gamma)  # type: ignore[operator]

    parameters = list(reward.parameters())
    by_autograd = flat(torch.autograd.grad(nll(), parameters))
    differences = []
    with torch.no_grad():
        for parameter in parameters:
            for index in range(parameter.numel()):
                entry, sides = parameter.view(-1), []
                kept = float(entry[index])
                for step in (1e-5, -1e-5):
                    entry[index] = kept + step
                    sides.append(float(nll()))
                entry[index] = kept
                differences.append((sides[0] - sides[1]) / 2e-5)
    return by_autograd, torch.tensor(differences, dtype=torch.float64)


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("gamma", [1.0, 0.8])
@pytest.mark.parametrize("kind", KINDS)
def test_linear_link_with_every_walk_is_the_gradient_of_the_likelihood(kind: Kind, gamma: float):
    """∇(1/β)(E_own[R] − E_demos[R]) = −∇E_demos[Σ γ^t log π_θ], whatever the demonstrations: here seven."""
    domain = WalksDomain(world(reward=kind, num_demonstrations=7), seed=1)
    one = row("linear", gamma=gamma, policy_updates=4)
    reward = domain.build(one).reward
    scramble(reward.scores)
    shown = domain.demonstrations.trajectories
    with torch.no_grad():
        walker = optimal(domain, reward.scores.table(), one.beta, gamma)
    own = every_walk(domain.world.graph, domain.config.horizon, domain.contexts[shown.context_id], walker)
    batch = Batch(demonstrations=shown, own=own)
    loss = joint_loss(one, one.phases[0], log_prob=walker.log_prob, demonstration_reward=reward, preference_reward=None)
    loss(batch, batch.normaliser())[0].backward()
    found = flat(parameter.grad for parameter in reward.scores.parameters())
    by_autograd, by_differences = exact_gradients(domain, reward.scores, shown, one.beta, gamma)
    assert relative_error(found, by_autograd) < 1e-12
    assert relative_error(found, by_differences) < 1e-6


@pytest.mark.parametrize("gamma", [1.0, 0.8])
@pytest.mark.parametrize("kind", KINDS)
def test_a_round_of_the_learner_is_a_step_along_that_gradient(kind: Kind, gamma: float):
    """With SGD of step size 1 the reward moves by minus the gradient, here in micro-batches of 50 walks."""
    domain = Enumerated(world(reward=kind), seed=2)
    one = row("linear", gamma=gamma, policy_updates=4)
    one = replace(one, reward_descent=replace(one.reward_descent, micro_batch_size=50))
    learner = Learner(domain, one, seed=0)
    scramble(learner.reward.scores)
    before = flat(learner.reward.scores.parameters())
    by_autograd, by_differences = exact_gradients(
        domain, learner.reward.scores, domain.demonstrations.trajectories, one.beta, gamma
    )
    learner.round()
    moved = before - flat(learner.reward.scores.parameters())
    assert relative_error(moved, by_autograd) < 1e-12
    assert relative_error(moved, by_differences) < 1e-6


def test_the_demonstration_weight_scales_the_gradient():
    """w_d = 3 makes the loss three times w_d = 1."""
    domain = Enumerated(world(), seed=2)
    steps = []
    for weight in (1.0, 3.0):
        learner = Learner(domain, row("linear", policy_updates=4, demonstration_weight=weight), seed=0)
        scramble(learner.reward.scores)
        before = flat(learner.reward.scores.parameters())
        learner.round()
        steps.append(flat(learner.reward.scores.parameters()) - before)
    torch.testing.assert_close(steps[1], 3.0 * steps[0])


def test_sampled_gradients_converge_to_the_exact_one():
    """The error of a mean of n falls as n^(-1/2): over n = 2^5 … 2^13 the fitted exponent is within 0.1."""
    domain = WalksDomain(world(reward="linear"), seed=1)
    one = row("linear", policy_updates=4)
    reward = domain.build(one).reward
    scramble(reward.scores)
    expert = domain.world.expert
    shown = every_walk(domain.world.graph, domain.config.horizon, domain.contexts, expert)
    with torch.no_grad():
        walker = optimal(domain, reward.scores.table(), one.beta)
    parameters = list(reward.scores.parameters())
    exact = flat(
        torch.autograd.grad(-log_likelihood(optimal(domain, reward.scores.table(), one.beta), shown), parameters)
    )
    loss = joint_loss(one, one.phases[0], log_prob=walker.log_prob, demonstration_reward=reward, preference_reward=None)
    counts, errors = [], []
    for power in range(5, 14):
        for seed in range(10):
            draw = torch.Generator().manual_seed(100 * power + seed)
            contexts = domain.contexts[torch.randint(len(domain.contexts), (2**power,), generator=draw)]
            batch = Batch(demonstrations=expert.sample(contexts, draw), own=walker.sample(contexts, draw))
            found = flat(torch.autograd.grad(loss(batch, batch.normaliser())[0], parameters))
            counts.append(2**power)
            errors.append(relative_error(found, exact))
    fit = slope(counts, errors)
    assert abs(fit.estimate + 0.5) < 0.1, str(fit)
    assert errors[-1] < 0.1


# Optimal policies, likelihoods and scores against sums over walks


def test_every_walk_is_there_once_with_its_probability():
    """Weights add up to 1, and to the visits of each node at each step that the forward sweep gives."""
    domain = WalksDomain(world(), seed=0)
    graph, expert = domain.world.graph, domain.world.expert
    walks = everything(domain, expert).trajectories.validated("walks")
    keys = torch.stack([walks.data["node"], walks.data["action"], walks.mask.long()]).permute(1, 0, 2).flatten(1)
    assert len(torch.cat([walks.context_id[:, None], keys], dim=1).unique(dim=0)) == len(walks)
    expected = visitation(graph, expert.log_policy_HGNA, domain.world.starts(domain.contexts))
    found = torch.zeros_like(expected)
    step = torch.arange(walks.num_steps).expand(walks.mask.shape)
    weight = walks.weight[:, None] * walks.mask
    found.index_put_((step, walks.data["goal"], walks.data["node"]), weight, accumulate=True)
    torch.testing.assert_close(found, expected)
    first, second = every_pair(walks, everything(domain, reference_of(domain)).trajectories)
    assert torch.equal(first.context_id, second.context_id)
    assert float(first.weight.sum()) == pytest.approx(1.0)


def test_soft_values_are_log_partitions_and_policies_are_gibbs_over_walks():
    """γ = 1: V_0/β = log Σ_τ π_ref(τ) exp(R(τ)/β) and π(τ) = π_ref(τ) exp((R(τ) − V_0)/β), context by context."""
    domain, beta = WalksDomain(world(reward="network"), seed=0), 0.6
    reward = domain.build(row("linear", policy_updates=1)).reward
    scramble(reward.scores)
    with torch.no_grad():
        table, value_GN = soft_value_iteration(
            domain.world.graph, reward.scores.table(), domain.world.uniform_HGNA, beta, 1.0, domain.config.horizon
        )
        walks = every_walk(domain.world.graph, domain.config.horizon, domain.contexts, reference_of(domain))
        logit_B = log_share(reference_of(domain), walks) + returns(reward(walks), walks.discount(1.0)) / beta
    start = domain.contexts.data
    for context in range(len(domain.contexts)):
        own = walks.context_id == context
        log_partition = logit_B[own].logsumexp(0)
        torch.testing.assert_close(value_GN[start["goal"][context], start["start"][context]] / beta, log_partition)
        found = log_share(Walker(domain.world.graph, table), walks[own])
        torch.testing.assert_close(found, logit_B[own] - log_partition, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("gamma", [1.0, 0.8])
def test_the_implicit_reward_is_the_reward_up_to_a_constant_per_context(gamma: float):
    """Σ γ^t β log π/π_ref = R(τ) − V_0(s_0) where π is optimal for R. (For γ < 1, π(τ) itself is no Gibbs weight.)"""
    domain, beta = WalksDomain(world(reward="free"), seed=0), 0.6
    reward = domain.build(row("linear", policy_updates=1)).reward
    scramble(reward.scores)
    with torch.no_grad():
        table, value_GN = soft_value_iteration(
            domain.world.graph, reward.scores.table(), domain.world.uniform_HGNA, beta, gamma, domain.config.horizon
        )
        walker, reference = Walker(domain.world.graph, table), reference_of(domain)
        walks = every_walk(domain.world.graph, domain.config.horizon, domain.contexts, walker)
        discount_BT = walks.discount(gamma)
        implicit_B = returns(ImplicitReward(walker, reference, beta)(walks), discount_BT)
        start = domain.contexts[walks.context_id].data
        explicit_B = returns(reward(walks), discount_BT) - value_GN[start["goal"], start["start"]]
    torch.testing.assert_close(implicit_B, explicit_B, rtol=1e-12, atol=1e-12)


def test_the_examination_equals_sums_over_walks():
    """KL per decision: the walks' KL over their mean length. Regret: of true return − β KL(·‖uniform)."""
    domain = WalksDomain(world(), seed=3)
    graph, horizon, beta = domain.world.graph, domain.config.horizon, domain.config.temperature
    draw = torch.Generator().manual_seed(0)
    reward_HGNA = torch.randn(horizon, *graph.shape, generator=draw, dtype=torch.float64)
    policy = optimal(domain, reward_HGNA, 1.0)
    found = domain.evaluate(policy, None)
    for name, contexts in (("", domain.contexts), ("unseen/", domain.unseen)):
        by_expert, by_policy = (
            every_walk(graph, horizon, contexts, walker) for walker in (domain.world.expert, policy)
        )
        p, q = by_expert.weight, by_policy.weight
        true_return = (domain.world.true_rewards(by_expert) * by_expert.rewarded).sum(1)
        assert float(p.sum()) == pytest.approx(1.0, abs=1e-12)
        log_expert, log_policy, log_uniform = (
            log_share(walker, by_expert) for walker in (domain.world.expert, policy, reference_of(domain))
        )
        decisions = by_expert.mask.sum(1)
        expected = {
            "true_return": q @ true_return,
            "regret": p @ (true_return - beta * (log_expert - log_uniform))
            - q @ (true_return - beta * (log_policy - log_uniform)),
            "kl_expert": p @ (log_expert - log_policy) / (p @ decisions.double()),
            "kl_to_expert": q @ (log_policy - log_expert) / (q @ decisions.double()),
            "kl_expert_uniform": p @ (log_expert - log_uniform) / (p @ decisions.double()),
        }
        for key, value in expected.items():
            assert found[name + key] == pytest.approx(float(value), rel=1e-10, abs=1e-12), name + key
    assert domain.evaluate(domain.world.expert, None)["regret"] == pytest.approx(0.0, abs=1e-12)
    assert domain.evaluate(domain.world.expert, None)["score"] == pytest.approx(1.0, abs=1e-12)


# Fixed points


def centred(value_B: Tensor, walks: Trajectories) -> Tensor:
    """A number per walk, less its mean over the walks of the same context."""
    total = torch.zeros(int(walks.context_id.max()) + 1, dtype=value_B.dtype)
    count = total.index_add(0, walks.context_id, torch.ones_like(value_B))
    return value_B - (total.index_add(0, walks.context_id, value_B) / count)[walks.context_id]


def furthest(domain: WalksDomain, first: Sampler, second: Sampler) -> float:
    """The largest difference between two policies' log-probabilities of a whole walk."""
    walks = everything(domain, domain.world.expert).trajectories
    with torch.no_grad():
        return float((log_share(first, walks) - log_share(second, walks)).abs().max())


def solve_pairwise(
    domain: WalksDomain,
    one: Method,
    reward: Callable[[Trajectories], Tensor],
    parameters: Iterable[nn.Parameter],
    own: Walker,
) -> None:
    """Minimise the real pairwise loss over all pairs of an expert's walk and an own one of the same context."""
    shown, did = every_pair(*(everything(domain, walker).trajectories for walker in (domain.world.expert, own)))
    batch = Batch(demonstrations=shown, own=did)
    loss = joint_loss(one, one.phases[0], log_prob=own.log_prob, demonstration_reward=reward, preference_reward=None)

    def value() -> Tensor:
        total, _ = loss(batch, batch.normaliser())
        total.backward()
        return total.detach()

    minimise(parameters, value)


@pytest.mark.parametrize("beta", [0.3, 1.0, 3.0])
def test_pairwise_with_an_explicit_reward_settles_at_the_tempered_mixture(beta: float):
    """For own samples from q the loss is least at R = log π_E/q, and the policy answers π ∝ π_ref (π_E/q)^{1/β}.

    The fixed point is π ∝ π_ref^{β/(1+β)} π_E^{1/(1+β)}, not π_E. One full turn (reward solved, policy solved)
    multiplies the log-distance from it by −1/β, so that turning converges only where β > 1; going β/(1+β) of the way
    makes the factor 0. The solved reward is linear in q's log-probability, hence one damped turn must arrive.
    """
    domain, one = (
        WalksDomain(world(horizon=3, temperature=2.0, reward="free"), seed=0),
        row("pairwise", beta=beta, policy_updates=3),
    )
    reward, expert, uniform = domain.build(one).reward, domain.world.expert, reference_of(domain)
    weight = reward.scores.weight
    scramble(reward.scores, scale=0.1)
    log_ratio = expert.log_policy_HGNA - uniform.log_policy_HGNA
    mixture = optimal(domain, beta / (1.0 + beta) * log_ratio, beta)
    walks = everything(domain, expert).trajectories
    by_formula = (beta * log_share(uniform, walks) + log_share(expert, walks)) / (1.0 + beta)
    torch.testing.assert_close(centred(log_share(mixture, walks), walks), centred(by_formula, walks))

    def answer() -> Walker:
        return optimal(domain, reward.scores.table().detach(), beta)

    def off() -> Tensor:
        return centred(log_share(answer(), walks) - log_share(mixture, walks), walks)

    started, off_before = weight.detach().clone(), off()
    solve_pairwise(domain, one, reward, [weight], answer())
    torch.testing.assert_close(off(), -off_before / beta, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        weight.copy_(started.lerp(weight, beta / (1.0 + beta)))
    assert furthest(domain, answer(), mixture) < 1e-6
    solve_pairwise(domain, one, reward, [weight], answer())
    assert furthest(domain, answer(), mixture) < 1e-6
    assert furthest(domain, answer(), expert) > 0.1


def test_the_single_loop_settles_there_without_damping():
    """One small step of the reward per exact policy: near the mixture the field is (1 + 1/β) times the loss's Hessian,
    which is positive, so β = 0.5 converges here although full turns diverge.
    """
    beta = 0.5
    domain, one = WalksDomain(world(horizon=2, reward="free"), seed=0), row("pairwise", beta=beta, policy_updates=2)
    one = replace(one, reward_descent=DescentConfig(optimiser="sgd", learning_rate=8.0))
    reward, expert = domain.build(one).reward, domain.world.expert
    log_ratio = expert.log_policy_HGNA - domain.world.uniform_HGNA
    mixture = optimal(domain, beta / (1.0 + beta) * log_ratio, beta)
    loss = joint_loss(one, one.phases[0], log_prob=expert.log_prob, demonstration_reward=reward, preference_reward=None)
    shown = everything(domain, expert).trajectories
    for _ in range(600):
        walker = optimal(domain, reward.scores.table().detach(), beta)
        first, second = every_pair(shown, everything(domain, walker).trajectories)
        batch = Batch(demonstrations=first, own=second)
        reward.descend(loss, batch, batch.normaliser())
    assert furthest(domain, optimal(domain, reward.scores.table().detach(), beta), mixture) < 1e-6


@pytest.mark.parametrize("beta", [0.4, 0.5, 1.0, 2.0])
def test_a_solved_round_of_self_play_multiplies_the_log_error(beta: float):
    """β log π/π_k = log π_E/π_k at the minimum, so log π/π_E = (1 − 1/β) log π_k/π_E: factors −1.5, −1, 0 and ½.

    Below β = ½ it grows, at ½ it swings for ever, at 1 a single round arrives.
    """
    domain = WalksDomain(world(horizon=3, temperature=2.0), seed=0)
    one = row("pairwise", beta=beta, reward="implicit", demonstration_reference="previous")
    policy, walks = domain.build(one).policy, everything(domain, domain.world.expert).trajectories

    def error(walker: Sampler) -> Tensor:
        return centred(log_share(walker, walks) - log_share(domain.world.expert, walks), walks)

    previous = reference_of(domain)
    scramble(policy.scores, scale=0.1)
    for _ in range(3):
        reward = ImplicitReward(policy, previous, beta)
        solve_pairwise(domain, one, reward, policy.scores.parameters(), previous)
        now = Walker(domain.world.graph, policy.log_policy().detach().contiguous())
        torch.testing.assert_close(error(now), (1.0 - 1.0 / beta) * error(previous), rtol=1e-5, atol=1e-6)
        previous = now
    if beta == 1.0:
        assert furthest(domain, previous, domain.world.expert) < 1e-6


def solve_explicit(domain: WalksDomain, one: Method, shown: Trajectories, compared: Preferences | None) -> Walker:
    """The optimum of w_d · linear + w_p · Bradley-Terry with an exact policy for every reward on the way."""
    reward, (phase,) = domain.build(one).reward, one.phases
    loss = joint_loss(one, phase, log_prob=reference_of(domain).log_prob, demonstration_reward=reward,
                      preference_reward=reward)  # fmt: skip
    walks = everything(domain, reference_of(domain)).trajectories

    def answer() -> Walker:
        return optimal(domain, reward.scores.table().detach(), one.beta, one.gamma)

    def value() -> Tensor:
        walker = answer()
        own = replace(walks, weight=log_share(walker, walks).exp() / len(domain.contexts))
        batch = Batch(demonstrations=shown, own=own, preferences=compared)
        total, metrics = loss(batch, batch.normaliser())
        total.backward()
        nll = -log_likelihood(walker, shown, one.gamma)
        return phase.demonstration_weight * nll + phase.preference_weight * metrics.get("preference_loss", 0.0)

    minimise(reward.scores.parameters(), value)
    return answer()


def solve_direct(domain: WalksDomain, one: Method, shown: Trajectories, compared: Preferences | None) -> Walker:
    """The optimum of w_d · likelihood + w_p · Bradley-Terry on the implicit reward, the start as its reference."""
    policy, (phase,) = domain.build(one).policy, one.phases
    implicit = ImplicitReward(policy, reference_of(domain), one.beta)
    loss = joint_loss(one, phase, log_prob=policy.log_prob, demonstration_reward=None, preference_reward=implicit)
    batch = Batch(demonstrations=shown, preferences=compared)

    def value() -> Tensor:
        total, _ = loss(batch, batch.normaliser())
        total.backward()
        return total.detach()

    minimise(policy.scores.parameters(), value)
    return Walker(domain.world.graph, policy.log_policy().detach().contiguous())


@pytest.mark.parametrize("gamma", [1.0, 0.8])
def test_with_free_rewards_inverse_rl_is_behaviour_cloning(gamma: float):
    """One number per time, state and action can make any policy optimal, so both maximise the same likelihood over the
    same set. The demonstrations follow no Markov policy; both end at the frequencies of moves given time and state."""
    domain = WalksDomain(world(horizon=3, temperature=2.0, reward="free"), seed=0)
    shown = everything(domain, reference_of(domain)).trajectories
    shown = replace(shown, weight=random_weights(shown))
    inverse = solve_explicit(domain, row("linear", gamma=gamma, policy_updates=3), shown, None)
    cloned = solve_direct(domain, row("likelihood", gamma=gamma, reward="none"), shown, None)
    by_count = Walker(domain.world.graph, frequencies(domain, shown))
    assert furthest(domain, cloned, by_count) < 1e-6
    assert furthest(domain, inverse, by_count) < 1e-6


def frequencies(domain: WalksDomain, walks: Trajectories) -> Tensor:
    """[H, G, N, A]: the log-frequency of each move given time, goal and node; uniform where nobody has been."""
    graph, data = domain.world.graph, walks.data
    step = torch.arange(walks.num_steps).expand(walks.mask.shape)
    count = torch.zeros(domain.config.horizon, *graph.shape, dtype=torch.float64)
    weight = walks.weight[:, None] * walks.mask
    count.index_put_((step, data["goal"], data["node"], data["action"]), weight, accumulate=True)
    table = (count / count.sum(-1, keepdim=True)).log().clamp(min=-1e9)
    return torch.where(count.sum(-1, keepdim=True) > 0, table, domain.world.uniform_HGNA)


def comparisons(domain: WalksDomain, count: int = 60) -> Preferences:
    """Pairs of whole walks within a context, with every degree of preference and unequal weights."""
    draw = torch.Generator().manual_seed(5)
    walker = reference_of(domain)
    contexts = domain.contexts[torch.randint(len(domain.contexts), (count,), generator=draw)]
    first, second = (walker.sample(contexts, draw) for _ in range(2))
    weight, label = 0.5 + torch.rand(2, count, generator=draw, dtype=torch.float64)
    return Preferences(
        first=replace(first, weight=weight),
        second=second,
        label=label - 0.5,
        margin=torch.zeros_like(label),
        maker=torch.zeros(count, dtype=torch.long),
        makers=MAKERS,
    ).validated()


@pytest.mark.parametrize("gamma", [1.0, 0.8])
def test_joint_learning_and_its_direct_form_share_their_optimum(gamma: float):
    """aihf = direct-aihf where dynamics are deterministic and rewards free: R and β log π/π_ref differ by a constant
    per context, which drops out of comparisons within a context and is what the likelihood normalises away.

    The comparisons must matter: without them the optimum is elsewhere.
    """
    domain = WalksDomain(world(horizon=3, temperature=2.0, reward="free"), seed=0)
    shown, compared = everything(domain, domain.world.expert).trajectories, comparisons(domain)
    weights = {"demonstration_weight": 0.7, "preference": "bradley-terry", "preference_weight": 1.6}
    joint = solve_explicit(domain, row("linear", gamma=gamma, policy_updates=3, **weights), shown, compared)
    direct = solve_direct(domain, row("likelihood", gamma=gamma, reward="implicit", **weights), shown, compared)
    assert furthest(domain, joint, direct) < 1e-6
    assert furthest(domain, joint, domain.world.expert) > 0.1


# Identities between methods


@pytest.mark.parametrize("kind", KINDS)
def test_the_linear_link_on_the_implicit_reward_is_the_self_play_gradient(kind: Kind):
    """∇ℓ = (1/β) E[∇β log π/π_ref(demo) − ∇β log π/π_ref(own)], sampled; with every own walk it is the gradient of the
    demonstrations' likelihood, because E_π[∇ log π] = 0. A fresh own sample therefore adds noise of mean zero, no more.
    """
    domain = WalksDomain(world(policy=kind, num_demonstrations=9), seed=4)
    one, clone = row("linear", reward="implicit"), row("likelihood", reward="none")
    parts = domain.build(one)
    policy, shown = parts.policy, domain.demonstrations.trajectories
    scramble(policy.scores)
    parameters = list(policy.scores.parameters())
    implicit = ImplicitReward(policy, parts.reference, one.beta)
    loss = joint_loss(one, one.phases[0], log_prob=policy.log_prob, demonstration_reward=implicit,
                      preference_reward=None)  # fmt: skip

    def gradient(own: Trajectories) -> Tensor:
        batch = Batch(demonstrations=shown, own=own)
        return flat(torch.autograd.grad(loss(batch, batch.normaliser())[0], parameters))

    contexts = domain.contexts[shown.context_id]
    own = policy.sample(contexts, torch.Generator().manual_seed(0))
    ratio_B = [one.beta * (policy.log_prob(side) - parts.reference.log_prob(side)).sum(1) for side in (shown, own)]
    by_hand = flat(torch.autograd.grad((ratio_B[0] - ratio_B[1]).mean() / one.beta, parameters))
    torch.testing.assert_close(gradient(own), -by_hand, rtol=1e-12, atol=1e-14)

    everywhere = every_walk(domain.world.graph, domain.config.horizon, contexts, policy.walker())
    likelihood = joint_loss(clone, clone.phases[0], log_prob=policy.log_prob, demonstration_reward=None,
                            preference_reward=None)  # fmt: skip
    batch = Batch(demonstrations=shown)
    cloning = flat(torch.autograd.grad(likelihood(batch, batch.normaliser())[0], parameters))
    assert relative_error(gradient(everywhere), cloning) < 1e-12
    assert relative_error(gradient(own), cloning) > 1e-3


class Poisoned(WalksDomain):
    """A world whose every comparison is NaN."""

    @cached_property
    def preferences(self) -> Preferences:
        nan_B = torch.full((8,), torch.nan, dtype=torch.float64)
        nan_BT = nan_B[:, None].expand(-1, 4)
        side = Trajectories(
            data={"node": nan_BT, "action": nan_BT, "goal": nan_BT},
            **dict.fromkeys(("mask", "rewarded", "behaviour_log_prob"), nan_BT),
            **dict.fromkeys(("context_id", "weight", "start_step", "terminated", "truncated"), nan_B),
        )
        return Preferences(first=side, second=side, label=nan_B, margin=nan_B, maker=nan_B, makers=MAKERS)


@pytest.mark.parametrize("kind", KINDS)
def test_joint_learning_without_preferences_is_inverse_rl_bit_for_bit(kind: Kind):
    """w_p = 0 leaves the term out: no bit of policy, reward or metrics changes, though every comparison is NaN."""
    config = world(reward=kind, policy=kind, num_demonstrations=16)
    joint = Learner(Poisoned(config, seed=0), method("aihf").with_phases(preference_weight=0.0, rounds=6), seed=3)
    inverse = Learner(WalksDomain(config, seed=0), method("ml-irl").with_phases(rounds=6), seed=3)
    for _ in range(6):
        assert joint.round() == inverse.round()
        for one, other in ((joint.policy, inverse.policy), (joint.reward, inverse.reward)):
            assert torch.equal(flat(one.scores.parameters()), flat(other.scores.parameters()))
        assert torch.equal(joint.policy.walker().log_policy_HGNA, inverse.policy.walker().log_policy_HGNA)
    assert joint.finished
    assert inverse.finished
    assert bool(flat(inverse.reward.scores.parameters()).isfinite().all())


def test_that_poison_is_poisonous():
    """With any weight on them the same comparisons stop the run: they are neither nodes nor goals."""
    config = world(reward="free", num_demonstrations=16)
    learner = Learner(Poisoned(config, seed=0), method("aihf").with_phases(preference_weight=1e-3), seed=3)
    with pytest.raises((RuntimeError, IndexError)):
        learner.round()
