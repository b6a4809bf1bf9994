"""The graph world: its graph, its people, its exact answers against chance, its policies and rewards of all kinds."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import scipy.sparse.csgraph
import scipy.stats
import torch
from torch import Tensor

from envs.labeller import LabellerConfig
from envs.walks.config import DemonstratorConfig, WalksConfig
from envs.walks.domain import WalksDomain, log_policy_of
from envs.walks.enumerate import every_walk
from envs.walks.feedback import demonstrator
from envs.walks.graph import FEATURES, TRUE_WEIGHT, build_graph, true_reward
from envs.walks.policy import TabularPolicy, TabularReward, Walker
from envs.walks.scores import build_scores
from envs.walks.solve import soft_evaluation, soft_value_iteration, soft_values, visitation
from unified_irl.descent_config import DescentConfig
from unified_irl.errors import UserError
from unified_irl.methods import METHODS
from unified_irl.trajectories import Contexts, Trajectories

torch.set_num_threads(1)

SMALL = WalksConfig(num_nodes=6, num_neighbours=2, horizon=5, num_demonstrations=30, num_preferences=30, reward_width=4)
KINDS = ("free", "linear", "network")
DOMAIN = WalksDomain(SMALL, 0)


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_walker(domain: WalksDomain, spread: float = 1.0, seed: int = 0) -> Walker:
    """A walker of random habits, different at every step."""
    graph, horizon = domain.world.graph, domain.config.horizon
    logit = spread * torch.randn(horizon, *graph.shape, generator=draw(seed), dtype=torch.float64)
    return Walker(graph, torch.where(graph.possible_NA, logit, -1e9).log_softmax(-1))


def policy_of(kind: Any, domain: WalksDomain = DOMAIN, **descent: Any) -> TabularPolicy:
    world = WalksDomain(replace(domain.config, policy=kind), domain.seed)
    parts = world.build(replace(METHODS["dpo"], policy_descent=DescentConfig(**descent)))
    return parts.policy


def scramble(policy: TabularPolicy | TabularReward, spread: float = 0.5, seed: int = 3) -> None:
    generator = draw(seed)
    with torch.no_grad():
        for parameter in policy.scores.parameters():
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("num_nodes", "num_neighbours"), [(2, 1), (7, 1), (24, 3), (60, 2)])
def test_graphs_are_connected_and_each_node_knows_its_nearest(num_nodes: int, num_neighbours: int, seed: int):
    graph = build_graph(replace(SMALL, num_nodes=num_nodes, num_neighbours=num_neighbours, graph_seed=seed))
    nexts, possible = graph.next_NA[:, :-1], graph.possible_NA[:, :-1]
    assert torch.equal(possible, nexts < num_nodes)
    assert graph.possible_NA[:, -1].all()
    assert (graph.next_NA[:, -1] == num_nodes).all(), "the last action ends the walk"
    linked = torch.zeros(num_nodes, num_nodes, dtype=torch.bool)
    for node in range(num_nodes):
        ahead = nexts[node][possible[node]].tolist()
        assert node not in ahead
        assert len(set(ahead)) == len(ahead) >= num_neighbours
        linked[node, ahead] = True
        distance = (graph.position_N2 - graph.position_N2[node]).norm(dim=1)
        nearest = distance.argsort()[1 : 1 + num_neighbours]
        assert linked[node, nearest].all()
    count, _ = scipy.sparse.csgraph.connected_components(linked.numpy(), directed=True, connection="strong")
    assert count == 1, "every node can be reached from every other"


def test_graphs_are_a_function_of_their_seed():
    one, again, other = (build_graph(replace(SMALL, graph_seed=seed)) for seed in (5, 5, 6))
    for name in ("position_N2", "toll_N", "goal_G", "next_NA", "possible_NA"):
        assert torch.equal(getattr(one, name), getattr(again, name))
    assert not torch.equal(one.position_N2, other.position_N2)


def test_tolls_and_goals_are_as_configured():
    config = replace(SMALL, num_nodes=400, num_neighbours=3, num_goals=17, toll_share=0.3, toll=0.6)
    graph = build_graph(config)
    taxed = graph.toll_N[graph.toll_N > 0]
    assert 0.3 <= float(taxed.min()) <= float(taxed.max()) <= 0.9
    assert len(taxed) / 400 == pytest.approx(0.3, abs=0.09)
    assert len(graph.goal_G.unique()) == 17
    assert graph.shape[0] == 17
    assert not build_graph(replace(config, toll_share=0.0)).toll_N.any()


def test_features_say_what_a_move_looks_like():
    graph = DOMAIN.world.graph
    features = graph.features()
    num_goals, num_nodes, num_actions = graph.shape
    assert features.shape == (num_goals, num_nodes, num_actions, len(FEATURES))
    for goal, node, action in itertools.product(range(num_goals), range(num_nodes), range(num_actions)):
        there, aim = int(graph.next_NA[node, action]), int(graph.goal_G[goal])
        place = graph.position_N2
        stops = action == num_actions - 1
        if not graph.possible_NA[node, action]:
            expected = [0.0] * 6
        elif stops:
            expected = [0.0, 0.0, float(node == aim), float(node != aim), 0.0, 0.0]
        else:
            nearer = (place[aim] - place[node]).norm() - (place[aim] - place[there]).norm()
            length = (place[there] - place[node]).norm()
            expected = [float(length), float(graph.toll_N[there]), 0.0, 0.0, 1.0, float(nearer)]
        assert features[goal, node, action].tolist() == pytest.approx(expected)
    assert torch.equal(graph.inputs()[..., :6], features)
    assert graph.inputs().shape[-1] == 12


def test_the_true_reward_is_linear_in_the_features():
    """Stopping at the goal pays 2; a move costs its length and the toll of where it leads."""
    graph = DOMAIN.world.graph
    weight = torch.tensor(TRUE_WEIGHT, dtype=torch.float64) * torch.tensor([1, 1, SMALL.goal_reward, 1, 1, 1])
    torch.testing.assert_close(true_reward(graph, SMALL), graph.features() @ weight)
    goal = int(graph.goal_G[2])
    assert float(true_reward(graph, SMALL)[2, goal, -1]) == 2.0
    assert float(true_reward(graph, SMALL)[2, (goal + 1) % 6, -1]) == 0.0


def test_contexts_are_all_pairs_of_a_start_and_another_goal():
    pairs = DOMAIN.contexts
    goals = DOMAIN.world.graph.goal_G[pairs.data["goal"]]
    assert (goals != pairs.data["start"]).all()
    assert len(set(zip(goals.tolist(), pairs.data["start"].tolist(), strict=True))) == len(pairs) == 6 * 5
    assert len(DOMAIN.shown) + len(DOMAIN.unseen) == 30
    assert not set(DOMAIN.shown.ids.tolist()) & set(DOMAIN.unseen.ids.tolist())
    assert set(DOMAIN.demonstrations.trajectories.context_id.tolist()) <= set(DOMAIN.shown.ids.tolist())
    few = WalksDomain(replace(SMALL, num_goals=2, demonstrated_share=0.01), 0)
    assert (len(few.shown), len(few.unseen)) == (1, 9)


def test_data_are_a_function_of_their_seed():
    """The data seed fixes data and contexts while the run's seed goes on to vary what is built."""

    def demonstrated(config: WalksConfig, seed: int) -> list[Any]:
        walks = WalksDomain(config, seed).demonstrations.trajectories
        return [walks.data["node"].tolist(), walks.data["goal"][:, 0].tolist()]

    assert demonstrated(SMALL, 3) == demonstrated(SMALL, 3) != demonstrated(SMALL, 4)
    fixed = replace(SMALL, data_seed=3)
    assert demonstrated(fixed, 8) == demonstrated(fixed, 9) == demonstrated(SMALL, 3)
    rewards = [WalksDomain(fixed, seed).build(METHODS["ml-irl"]).reward for seed in (8, 9)]
    assert not torch.equal(*(next(iter(one.scores.layers)).weight for one in rewards))


def check_walks(walks: Trajectories, domain: WalksDomain) -> None:
    """They move along edges, stop with the last action, and are cut off at the horizon."""
    graph, horizon = domain.world.graph, domain.config.horizon
    walks.validated("walks")
    for row in range(len(walks)):
        length = int(walks.mask[row].sum())
        assert walks.mask[row, :length].all()
        assert 1 <= length <= horizon
        node, action = walks.data["node"][row, :length], walks.data["action"][row, :length]
        assert graph.possible_NA[node, action].all()
        ahead = graph.next_NA[node, action]
        assert torch.equal(ahead[:-1], node[1:])
        assert bool(walks.terminated[row]) == (int(ahead[-1]) == len(graph.next_NA))
        assert bool(walks.truncated[row]) == (not walks.terminated[row])
        assert length == horizon or walks.terminated[row]


def test_walks_keep_to_the_graph():
    walker = random_walker(DOMAIN)
    walks = walker.sample(DOMAIN.contexts, draw())
    check_walks(walks, DOMAIN)
    assert torch.equal(walks.context_id, DOMAIN.contexts.ids)
    assert torch.equal(walks.data["node"][:, 0], DOMAIN.contexts.data["start"])
    assert (walks.data["goal"] == DOMAIN.contexts.data["goal"][:, None])[walks.mask].all()
    assert walks.truncated.any()
    assert walks.terminated.any()
    check_walks(DOMAIN.demonstrations.trajectories, DOMAIN)
    check_walks(DOMAIN.preferences.first, DOMAIN)


def test_steps_come_as_often_as_their_probability_says():
    """χ² of 20,000 first and second moves from one context against the walker's table; p < 10⁻⁴ would be a fault."""
    walker, context = random_walker(DOMAIN), DOMAIN.contexts[torch.zeros(20_000, dtype=torch.long)]
    walks = walker.sample(context, draw(1))
    start, goal = int(context.data["start"][0]), int(context.data["goal"][0])
    graph = DOMAIN.world.graph
    second = walks.mask[:, 1]
    common = Counter(walks.data["node"][second, 1].tolist()).most_common(1)[0][0]
    for step, node, rows in ((0, start, walks.mask[:, 0]), (1, common, second & (walks.data["node"][:, 1] == common))):
        possible = graph.possible_NA[node]
        chance = walker.log_policy_HGNA[step, goal, node][possible].exp()
        seen = torch.bincount(walks.data["action"][rows, step], minlength=len(possible))[possible]
        assert int(seen.sum()) == int(rows.sum()) > 1000
        assert scipy.stats.chisquare(seen.numpy(), (chance * seen.sum()).numpy()).pvalue > 1e-4


def test_whole_walks_come_as_often_as_their_probability_says():
    """χ² of 20,000 walks against every walk there is, those expected less than five times taken together."""
    walker, one = random_walker(DOMAIN, spread=1.5), DOMAIN.contexts[7:8]
    there_is = every_walk(DOMAIN.world.graph, SMALL.horizon, one, walker)
    name = {tuple(row): number for number, row in enumerate(key(there_is))}
    walks = walker.sample(one[torch.zeros(20_000, dtype=torch.long)], draw(2))
    seen = torch.zeros(len(there_is))
    for row, count in Counter(map(tuple, key(walks.padded(SMALL.horizon)))).items():
        seen[name[row]] += count
    expected = 20_000 * there_is.weight
    rare = expected < 5
    seen, expected = (torch.cat([part[~rare], part[rare].sum()[None]]) for part in (seen.double(), expected))
    assert len(seen) > 10
    assert scipy.stats.chisquare(seen.numpy(), expected.numpy(), sum_check=False).pvalue > 1e-4


def key(walks: Trajectories) -> list[list[int]]:
    """The actions of each walk, and −1 where it is over."""
    return torch.where(walks.mask, walks.data["action"], -1).tolist()


def test_the_expert_beats_everyone():
    """Nobody has a higher value, return less β KL, at the expert's own temperature; regret is measured against it.

    On the score it has 1, the uniform walker 0, and no walker of a higher temperature comes near.
    """
    everyone = [random_walker(DOMAIN, spread, seed) for spread in (0.1, 1.0, 5.0) for seed in range(5)]
    everyone += [Walker(DOMAIN.world.graph, DOMAIN.world.soft_optimal(temperature)) for temperature in (0.05, 0.2, 1.0)]
    for walker in everyone:
        metrics = DOMAIN.evaluate(walker, None)
        assert metrics["regret"] > 1e-3
        assert metrics["kl_expert"] > 1e-3
        assert metrics["kl_to_expert"] > 1e-3
    expert, uniform = DOMAIN.evaluate(DOMAIN.world.expert, None), DOMAIN.evaluate(uniform_walker(), None)
    assert (expert["score"], uniform["score"]) == (pytest.approx(1.0), pytest.approx(0.0, abs=1e-12))
    assert expert["regret"] == pytest.approx(0.0, abs=1e-12)
    assert expert["kl_expert"] == expert["kl_to_expert"] == 0.0
    assert expert["advantage_correlation"] == pytest.approx(1.0)
    assert uniform["kl_expert"] == pytest.approx(uniform["kl_expert_uniform"])
    scores = [DOMAIN.evaluate(Walker(DOMAIN.world.graph, DOMAIN.world.soft_optimal(one)), None)["score"]
              for one in (0.1, 0.3, 1.0, 10.0)]  # fmt: skip
    assert scores == sorted(scores, reverse=True)
    assert scores[1] < 0.99


def uniform_walker() -> Walker:
    return Walker(DOMAIN.world.graph, DOMAIN.world.uniform_HGNA.contiguous())


def test_demonstrators_get_worse_with_every_fault():
    def quality(**who: float) -> float:
        domain = WalksDomain(replace(SMALL, demonstrator=DemonstratorConfig(**who)), 0)
        log_policy = demonstrator(domain.world).log_policy_HGNA
        assert torch.allclose(log_policy.exp().sum(-1), torch.ones((), dtype=torch.float64))
        said = domain.demonstrations.makers[0].quality
        assert said == pytest.approx(domain.evaluate(demonstrator(domain.world), None)["score"])
        return said

    best = quality()
    assert best == pytest.approx(1.0)
    for faults in ({"temperature": 0.5}, {"slips": 0.3}, {"foresight": 0.5}):
        assert quality(**faults) < best - 0.02


def test_slips_are_a_share_of_random_moves():
    domain = WalksDomain(replace(SMALL, demonstrator=DemonstratorConfig(slips=0.25)), 0)
    slipping, planned = demonstrator(domain.world).log_policy_HGNA.exp(), domain.world.soft_optimal(0.1).exp()
    possible = domain.world.graph.possible_NA
    share = 1.0 / possible.sum(1, keepdim=True)
    expected = 0.75 * planned + 0.25 * share * possible
    torch.testing.assert_close(slipping, expected)


@pytest.mark.parametrize(("level", "length"), [("step", 1), ("segment", 3), ("whole", None)])
def test_what_is_compared(level: Any, length: int | None):
    """Segments lie inside walks at random places, and hold as many steps as there are, up to the length asked for."""
    config = replace(SMALL, preference_level=level, segment_length=3, num_preferences=200, compared_temperatures=(9.0,))
    compared = WalksDomain(config, 0).preferences.validated()
    assert compared.level == level
    graph = DOMAIN.world.graph
    for side in (compared.first, compared.second):
        if length is None:
            assert not side.start_step.any()
            check_walks(side, DOMAIN)
            continue
        assert side.num_steps == length
        assert (side.start_step + side.rewarded.sum(1) <= SMALL.horizon).all()
        node, action = side.data["node"], side.data["action"]
        assert graph.possible_NA[node, action][side.mask].all()
        on = side.mask[:, 1:]
        assert torch.equal(graph.next_NA[node, action][:, :-1][on], node[:, 1:][on])
        assert len(set(side.start_step.tolist())) >= 3
        short = side.rewarded.sum(1) < length
        assert not side.start_step[short].any(), "only a walk that is shorter as a whole makes a shorter segment"


def test_labels_follow_the_true_return_of_what_was_seen():
    config = replace(SMALL, preference_level="segment", labeller=LabellerConfig(rationality=math.inf))
    domain = WalksDomain(config, 0)
    compared = domain.preferences
    first, second = (
        (domain.world.true_rewards(one) * one.rewarded).sum(1) for one in (compared.first, compared.second)
    )
    clear = (first - second).abs() > 1e-9
    assert clear.sum() > 10
    assert torch.equal(compared.label[clear] == 1.0, (first > second)[clear])


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_are_the_same_whichever_way_they_are_asked_for(kind: str):
    graph, horizon = DOMAIN.world.graph, SMALL.horizon
    scores = build_scores(kind, graph, horizon, 4, draw())
    assert not scores.table().any(), "every kind starts as zero"
    with torch.no_grad():
        for parameter in scores.parameters():
            parameter.normal_(generator=draw(1))
    table = scores.table().expand(horizon, -1, -1, -1)
    index = torch.cartesian_prod(*(torch.arange(size) for size in (horizon, *graph.shape))).T
    torch.testing.assert_close(scores.at(*index).view(table.shape), table)
    torch.testing.assert_close(scores.at(*index[:, ::7]), table.flatten()[::7])
    rows = torch.cartesian_prod(*(torch.arange(size) for size in (horizon, *graph.shape[:2]))).T
    torch.testing.assert_close(scores.rows(*rows).view(table.shape), table)
    count = sum(parameter.numel() for parameter in scores.parameters())
    assert count == {"free": horizon * 6 * 6 * graph.shape[2], "linear": 6, "network": 13 * 4 + 5 * 4 + 5}[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_policies_speak_like_their_table(kind: str):
    """Log-probabilities of steps, whole or cut out, are entries of the normalised table at the time of the step."""
    policy = policy_of(kind)
    possible = DOMAIN.world.graph.possible_NA
    torch.testing.assert_close(log_policy_of(policy)[:, :, possible], DOMAIN.world.uniform_HGNA[:, :, possible])
    scramble(policy)
    policy._walker = None
    table = policy.walker().log_policy_HGNA
    torch.testing.assert_close(table.exp().sum(-1), torch.ones_like(table[..., 0]))
    assert (table[:, :, ~possible] < -1e8).all()
    walks = random_walker(DOMAIN).sample(DOMAIN.contexts, draw())
    there = policy.log_prob(walks)
    data = walks.data
    step = torch.arange(walks.num_steps).expand_as(data["goal"])
    expected = table[step, data["goal"], data["node"], data["action"]] * walks.mask
    torch.testing.assert_close(there, expected)
    torch.testing.assert_close(policy.frozen().log_prob(walks), expected)
    start = (walks.mask.sum(1) - 2).clamp(min=0)
    cut = walks.segment(start, 2)
    window = there.gather(1, (start[:, None] + torch.arange(2)).clamp(max=there.shape[1] - 1)) * cut.mask
    torch.testing.assert_close(policy.log_prob(cut), window)
    if kind == "free":
        unaware = policy.log_prob(replace(cut, start_step=torch.zeros_like(start)))
        assert not torch.allclose(unaware, window), "a free policy tells the time"


def test_a_kind_is_chosen_for_the_method():
    """auto: of the reward's kind, with a free correction where there is an explicit reward to climb."""
    domain = WalksDomain(replace(SMALL, reward="linear"), 0)
    kinds = {name: type(domain.build(METHODS[name]).policy.scores).__name__ for name in ("aihf", "dpo", "bc")}
    assert kinds == {"aihf": "Corrected", "dpo": "Shared", "bc": "Shared"}
    assert domain.build(METHODS["dpo"]).reward is None
    assert type(policy_of("free").scores).__name__ == "Free"


def true_table(domain: WalksDomain) -> TabularReward:
    """A linear reward that is the true one."""
    reward = WalksDomain(replace(domain.config, reward="linear"), 0).build(METHODS["aihf"]).reward
    with torch.no_grad():
        weight = torch.tensor(TRUE_WEIGHT, dtype=torch.float64)
        weight[2] *= domain.config.goal_reward
        reward.scores.layers[0].weight.copy_(weight[None])
    return reward


def improved(
    policy: TabularPolicy, contexts: Contexts, num_updates: int, beta: float = 0.1, gamma: float = 1.0
) -> float:
    metrics, own = policy.improve(
        true_table(DOMAIN), uniform_walker(), beta, gamma, contexts, num_updates, draw()
    )  # fmt: skip
    assert torch.equal(own.context_id, contexts.ids)
    assert set(metrics) == {"policy_loss"}
    return metrics["policy_loss"]


def objective(log_policy: Tensor, contexts: Contexts, beta: float = 0.1, gamma: float = 1.0) -> float:
    world = DOMAIN.world
    _, value = soft_evaluation(world.graph, log_policy, world.reward_GNA[None], world.uniform_HGNA, beta, gamma)
    return float(value[contexts.data["goal"], contexts.data["start"]].mean())


def test_the_true_reward_and_enough_updates_make_the_expert():
    """Soft policy iteration from the uniform walker is exact one step further back with every update."""
    policy, wide = policy_of("free"), DOMAIN.contexts
    losses = [improved(policy, wide, 1) for _ in range(SMALL.horizon)]
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(losses))
    table, possible = log_policy_of(policy), DOMAIN.world.graph.possible_NA
    torch.testing.assert_close(table[:, :, possible], DOMAIN.world.expert.log_policy_HGNA[:, :, possible])
    at_once = policy_of("free")
    improved(at_once, wide, SMALL.horizon)
    torch.testing.assert_close(log_policy_of(at_once)[:, :, possible], table[:, :, possible])
    assert losses[-1] == pytest.approx(-objective(table, wide))


def test_the_optimum_is_measured_from_the_reference():
    """π* ∝ π_ref exp(Q/β): against a walker of random habits, with a discount, step by step and all at once."""
    world, reference = DOMAIN.world, random_walker(DOMAIN, seed=4)
    best, _ = soft_value_iteration(
        world.graph, world.reward_GNA[None], reference.log_policy_HGNA, 0.5, 0.9, SMALL.horizon
    )
    for updates in (SMALL.horizon, 1):
        policy = policy_of("free")
        for _ in range(SMALL.horizon):
            policy.improve(true_table(DOMAIN), reference, 0.5, 0.9, DOMAIN.contexts, updates, draw())
        possible = world.graph.possible_NA
        torch.testing.assert_close(log_policy_of(policy)[:, :, possible], best[:, :, possible])


def test_small_policy_steps_get_there_too():
    domain = WalksDomain(replace(SMALL, policy="free", policy_step=0.3), 0)
    policy = domain.build(METHODS["aihf"]).policy
    losses = [improved(policy, DOMAIN.contexts, 4) for _ in range(10)]
    assert losses == sorted(losses, reverse=True)
    best = -objective(DOMAIN.world.expert.log_policy_HGNA, DOMAIN.contexts)
    assert losses[0] > best + 1e-3
    assert losses[-1] == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize("kind", ["linear", "network"])
def test_the_policy_gradient_improves_parametric_policies(kind: str):
    """Each of ten small steps up the exact objective raises it, at γ = 1 and below, and the loss says by how much."""
    for gamma in (1.0, 0.8):
        policy = policy_of(kind, optimiser="sgd", learning_rate=0.02)
        before = [objective(log_policy_of(policy), DOMAIN.contexts, gamma=gamma)]
        for _ in range(10):
            loss = improved(policy, DOMAIN.contexts, 2, gamma=gamma)
            before.append(objective(log_policy_of(policy), DOMAIN.contexts, gamma=gamma))
            assert loss == pytest.approx(-before[-1])
        assert all(later > earlier for earlier, later in itertools.pairwise(before))
    policy = policy_of(kind, learning_rate=0.05)
    improved(policy, DOMAIN.contexts, 150)
    assert DOMAIN.evaluate(policy, None)["score"] > {"linear": 0.5, "network": 0.9}[kind]


def test_the_policy_gradient_is_that_of_finite_differences():
    """A plain step of size ε moves each weight by ε times the slope of the objective over the given contexts."""
    policy, some, rate = policy_of("linear", optimiser="sgd", learning_rate=1e-6), DOMAIN.contexts[:7], 1e-6
    scramble(policy)
    (weight,) = policy.scores.parameters()
    start = weight.detach().clone()
    slopes = []
    for number in range(6):
        ends = []
        for way in (1e-4, -1e-4):
            with torch.no_grad():
                weight.copy_(start)
                weight[0, number] += way
            ends.append(objective(policy.log_policy().detach(), some))
        slopes.append((ends[0] - ends[1]) / 2e-4)
    with torch.no_grad():
        weight.copy_(start)
    improved(policy, some, 1)
    torch.testing.assert_close((weight.detach() - start)[0] / rate, torch.tensor(slopes).double(), rtol=1e-3, atol=1e-4)


def test_only_the_given_contexts_count_for_a_shared_policy():
    one, other = (policy_of("linear", optimiser="sgd", learning_rate=0.01) for _ in range(2))
    improved(one, DOMAIN.contexts[:3], 1)
    improved(other, DOMAIN.contexts[3:6], 1)
    assert not torch.allclose(log_policy_of(one), log_policy_of(other))


def test_exact_returns_and_divergences_agree_with_sampled_ones():
    """12,000 walks over all contexts: return, regret and divergences per decision, within 4½ standard errors."""
    walker, count = random_walker(DOMAIN), 12_000
    world, exact = DOMAIN.world, DOMAIN.evaluate(walker, None)
    contexts = DOMAIN.contexts[torch.arange(count) % len(DOMAIN.contexts)]
    walks = walker.sample(contexts, draw(5))
    gain = (world.true_rewards(walks) * walks.rewarded).sum(1)
    assert float(gain.mean()) == near(exact["true_return"], gain)
    uniform, best = (
        world.true_value(one, DOMAIN.contexts) for one in (world.uniform_HGNA, world.expert.log_policy_HGNA)
    )
    assert exact["score"] == pytest.approx((exact["true_return"] - uniform) / (best - uniform))
    kl = (walker.log_prob(walks) - uniform_walker().log_prob(walks)).sum(1)
    shown = world.expert.sample(contexts, draw(6))
    expert_gain = (world.true_rewards(shown) * shown.rewarded).sum(1)
    expert_kl = (world.expert.log_prob(shown) - uniform_walker().log_prob(shown)).sum(1)
    regret = (expert_gain - 0.1 * expert_kl) - (gain - 0.1 * kl)
    assert float(regret.mean()) == near(exact["regret"], regret)
    for name, behaviours, one, other in (
        ("kl_to_expert", walks, walker, world.expert),
        ("kl_expert", shown, world.expert, walker),
        ("kl_expert_uniform", shown, world.expert, uniform_walker()),
    ):
        ratio = (one.log_prob(behaviours) - other.log_prob(behaviours)).sum(1)
        steps = behaviours.mask.sum(1).double()
        excess = (ratio - exact[name] * steps) / steps.mean()
        assert float(excess.mean()) == near(0.0, excess), name
    unseen = torch.isin(walks.context_id, DOMAIN.unseen.ids)
    assert float(gain[unseen].mean()) == near(exact["unseen/true_return"], gain[unseen])


def near(expected: float, sample: Tensor) -> Any:
    return pytest.approx(expected, abs=4.5 * float(sample.std()) / math.sqrt(len(sample)))


def test_visits_agree_with_sampled_ones():
    walker, count = random_walker(DOMAIN), 12_000
    visits = visitation(DOMAIN.world.graph, walker.log_policy_HGNA, DOMAIN.world.starts(DOMAIN.contexts))
    walks = walker.sample(DOMAIN.contexts[torch.arange(count) % len(DOMAIN.contexts)], draw(7))
    for step in range(walks.num_steps):
        on = walks.mask[:, step]
        seen = torch.zeros_like(visits[0])
        seen.index_put_((walks.data["goal"][on, step], walks.data["node"][on, step]),
                        torch.ones((), dtype=torch.float64), accumulate=True)  # fmt: skip
        assert (seen / count - visits[step]).abs().max() < 4.5 * math.sqrt(0.25 / count)
        assert float(visits[step].sum()) == pytest.approx(float(on.double().mean()), abs=0.02)


def test_a_reward_is_examined_on_fresh_comparisons():
    """The true reward agrees with as many answers as a rational labeller gives; its opposite with the rest of them;
    a reward of zero, which prefers nothing, with half.
    """
    policy, true = uniform_walker(), true_table(DOMAIN)
    accuracy = {sign: DOMAIN.evaluate(policy, lambda walks, sign=sign: sign * true(walks))["reward_accuracy"]
                for sign in (1.0, -1.0, 0.0)}  # fmt: skip
    assert accuracy[1.0] > 0.65
    assert accuracy[1.0] + accuracy[-1.0] == pytest.approx(1.0)
    assert accuracy[0.0] == 0.5
    oracle = WalksDomain(replace(SMALL, labeller=LabellerConfig(rationality=math.inf)), 0)
    gains = [gain_of(oracle, side) for side in (oracle.examination.first, oracle.examination.second)]
    ties = gains[0] == gains[1]
    assert oracle.evaluate(policy, true)["reward_accuracy"] == pytest.approx(1.0 - 0.5 * float(ties.double().mean()))
    assert "reward_accuracy" not in DOMAIN.evaluate(policy, None)


def gain_of(domain: WalksDomain, side: Trajectories) -> Tensor:
    return (domain.world.true_rewards(side) * side.rewarded).sum(1)


def test_the_likelihood_of_demonstrations_is_per_decision():
    shown = DOMAIN.demonstrations.trajectories
    uniform = DOMAIN.evaluate(uniform_walker(), None)["demonstration_nll"]
    ways = DOMAIN.world.graph.possible_NA.sum(1).double().log()
    assert uniform == pytest.approx(float(ways[shown.data["node"]][shown.mask].mean()))
    bare = WalksDomain(replace(SMALL, num_demonstrations=0), 0)
    assert "demonstration_nll" not in bare.evaluate(uniform_walker(), None)
    assert bare.demonstrations is None
    assert WalksDomain(replace(SMALL, num_preferences=0), 0).preferences is None


@pytest.mark.parametrize("gamma", [1.0, 0.7])
def test_values_for_large_graphs_are_the_same_values(gamma: float):
    world = DOMAIN.world
    _, value = soft_value_iteration(world.graph, world.reward_GNA[None], world.uniform_HGNA, 0.3, gamma, SMALL.horizon)
    for block in (1, 4, 32):
        there = soft_values(world.graph, world.reward_GNA, 0.3, gamma, SMALL.horizon, goals_per_block=block)
        torch.testing.assert_close(there, value)


def test_single_precision_gives_the_same_answers():
    rough = WalksDomain(replace(SMALL, dtype="float32"), 0)
    for name, value in rough.evaluate(rough.world.expert, None).items():
        if name != "demonstration_nll":
            assert value == pytest.approx(DOMAIN.evaluate(DOMAIN.world.expert, None)[name], abs=1e-4), name
    assert rough.demonstrations.trajectories.weight.dtype == torch.float32


IMPOSSIBLE = [
    *(({name: value}, f"walks: {name} is {value}; expected {least} or more.")
      for name, value, least in (("num_nodes", 1, 2), ("num_neighbours", 0, 1), ("num_goals", -1, 0), ("horizon", 0, 1),
                                 ("num_demonstrations", -1, 0), ("num_preferences", -1, 0), ("segment_length", 0, 1),
                                 ("reward_width", 0, 1), ("graph_seed", -1, 0))),
    ({"num_goals": 25}, "walks: num_goals is 25, but the graph has 24 nodes."),
    ({"num_nodes": 2, "num_neighbours": 1, "num_goals": 1},
     "walks: 2 nodes and 1 goal make a single start/goal pair; expected one more to examine."),
    ({"num_neighbours": 24}, "walks: num_neighbours is 24; expected fewer than 24 nodes."),
    ({"temperature": 0.0}, "walks: temperatures must be above 0."),
    ({"temperature": math.nan}, "walks: temperature is nan; expected a finite number."),
    ({"compared_temperatures": (0.1, -1.0)}, "walks: temperatures must be above 0."),
    ({"compared_temperatures": (math.inf,)}, "walks: compared_temperatures must be finite numbers."),
    ({"compared_temperatures": ()}, "walks: compared_temperatures is empty; name at least one temperature."),
    ({"demonstrated_share": 1.0},
     "walks: demonstrated_share is 1.0; expected above 0 and below 1, so that some start/goal pairs are never "
     "demonstrated."),
    ({"policy_step": 0.0}, "walks: policy_step is 0.0; expected above 0 and at most 1."),
    *((changes, "walks: expected a toll_share from 0 to 1, a toll of 0 or more and a goal_reward above 0.")
      for changes in ({"toll_share": 1.1}, {"toll": -1.0}, {"goal_reward": 0.0})),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "sentence"), IMPOSSIBLE, ids=[str(changes) for changes, _ in IMPOSSIBLE])
def test_impossible_worlds_get_a_sentence(changes: dict[str, Any], sentence: str):
    with pytest.raises(UserError) as caught:
        WalksConfig(**changes)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"temperature": 0.0}, "demonstrator: temperature is 0.0; expected a number above 0."),
        ({"slips": 1.0}, "demonstrator: slips is 1.0; expected a probability of at least 0 and below 1."),
        ({"foresight": 0.0}, "demonstrator: foresight is 0.0; expected a discount above 0 and at most 1."),
    ],
)
def test_impossible_demonstrators_get_a_sentence(changes: dict[str, float], sentence: str):
    with pytest.raises(UserError) as caught:
        DemonstratorConfig(**changes)
    assert str(caught.value) == sentence
