"""The graph world as a language: what is said, what it is worth, and the exact answers about whoever says it."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from envs.language import walks_text
from envs.language.task import LanguageTask
from envs.language.walks_speaker import WalkerSpeaker
from envs.language.walks_text import ANYWHERE, WalksText
from envs.language.walks_text_config import WalksTextConfig
from envs.walks.config import DemonstratorConfig, WalksConfig
from envs.walks.enumerate import every_walk
from envs.walks.feedback import demonstrator
from envs.walks.policy import Walker
from envs.walks.solve import divergence, visitation
from llm.codec import Codec, word_tokenizer
from llm.config import ModelConfig
from llm.examination import WordSpeaker, word_columns
from llm.models import small_model
from llm.roles import Whole
from llm.sizes import Shape
from llm.speech import Manner, Speech
from unified_irl.errors import UserError

torch.set_num_threads(1)

SMALL = WalksTextConfig(num_nodes=6, num_neighbours=2, horizon=4)
TASK = WalksText(SMALL, 0)
EVERYWHERE = torch.arange(len(TASK.prompts))
PAIR = WalksText(WalksTextConfig(num_nodes=2, num_neighbours=1, horizon=3, toll_share=0.0), 0)
"""Two nodes and one edge."""
DISTANCE = float((PAIR.world.graph.position_N2[0] - PAIR.world.graph.position_N2[1]).norm())


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def walker_of(habit: str, task: WalksText = TASK) -> Walker:
    """The expert, the uniform walker, one of random habits, or the soft-optimal one of a temperature."""
    world, graph = task.world, task.world.graph
    if habit == "random":
        logit = torch.randn(task.max_words, *graph.shape, generator=draw(4), dtype=torch.float64)
        return Walker(graph, torch.where(graph.possible_NA, logit, -1e9).log_softmax(-1))
    known = {"expert": world.expert.log_policy_HGNA, "uniform": world.uniform_HGNA}
    return Walker(graph, known[habit] if habit in known else world.soft_optimal(float(habit)))


def near(expected: float, sample: Tensor) -> Any:
    return pytest.approx(expected, abs=4.5 * float(sample.std()) / math.sqrt(len(sample)))


def test_every_word_prompt_and_decision_is_one_of_the_exact_world():
    task: LanguageTask = TASK
    assert task.words == (*(f"n{node}" for node in range(6)), *(f"to:n{node}" for node in range(6)), "to:anywhere")
    pairs, graph = TASK.world.pairs, TASK.world.graph
    goals = graph.goal_G[pairs.data["goal"]].tolist()
    assert list(task.prompts) == [
        f"to:n{goal} n{start}" for goal, start in zip(goals, pairs.data["start"].tolist(), strict=True)
    ]
    assert len(set(task.prompts)) == len(pairs) == 6 * 5
    assert (task.num_shown, task.max_words, task.name) == (15, 4, "walks-text")
    few = WalksText(replace(SMALL, num_goals=2, demonstrated_share=0.99), 0)
    aims = [f"to:n{goal}" for goal in few.world.graph.goal_G.tolist()]
    assert few.words[6:] == (*aims, ANYWHERE)
    assert {prompt.split()[0] for prompt in few.prompts} == set(aims)
    assert (len(few.prompts), few.num_shown) == (10, 9), "one pair at least is kept for examinations"
    for node in range(6):
        columns = TASK.column_NA[node][graph.possible_NA[node]].tolist()
        assert len(set(columns)) == len(columns), "no node is reached by two actions"
        assert columns[-1] == TASK.end == len(task.words)


def test_a_task_is_a_function_of_its_seed():
    again, other = (WalksText(SMALL, seed) for seed in (0, 1))
    assert again.prompts == TASK.prompts != other.prompts
    assert sorted(other.prompts) == sorted(TASK.prompts)
    for name in ("demonstrate", "expert", "propose"):
        said = [getattr(task, name)(EVERYWHERE, draw(seed)) for task, seed in ((TASK, 5), (again, 5), (TASK, 6))]
        assert said[0] == said[1] != said[2]
    documents = [task.corpus(50, draw(seed)) for task, seed in ((TASK, 5), (again, 5), (TASK, 6))]
    assert documents[0] == documents[1] != documents[2]


COMPLETIONS = [
    ("n1", True, 2 - DISTANCE),
    ("n1", False, -DISTANCE),
    ("", True, 0.0),
    ("", False, 0.0),
    ("n1 n0", True, -2 * DISTANCE),
    ("n1 n0 n1", False, -3 * DISTANCE),
    ("n1 n0 n1", True, -3 * DISTANCE),
    ("n1 n0 n1 n0 n7", True, -3 * DISTANCE),
    ("n0", True, -1.0),
    ("n1 n1", True, -DISTANCE - 1),
    ("n1 to:n1", True, -DISTANCE - 1),
    ("n1 Paris", False, -DISTANCE - 1),
    ("n1 n1 n0 n1", True, -DISTANCE - 1),
]


def test_a_completion_is_worth_its_way_and_its_end():
    """Two nodes at distance d, no tolls, from n0 to n1, three words at most.

    Going there and ending pays 2 − d, being cut off there −d. A word costs d if it is the other node, and 1 if it is
    anything else, a stay and a goal included; after that nothing counts. Three steps make a cut-off walk: whatever is
    said then, an end included, comes too late.
    """
    prompt = PAIR.prompts.index("to:n1 n0")
    completions, ended, worth = zip(*COMPLETIONS, strict=True)
    gold = PAIR.gold(torch.full((len(COMPLETIONS),), prompt), completions, ended)
    assert gold.dtype == torch.float64
    assert gold.tolist() == pytest.approx(worth)
    for completion, ends, expected in COMPLETIONS:
        alone = PAIR.gold(torch.tensor([prompt]), [completion], [ends])
        assert alone.tolist() == pytest.approx([expected]), "whatever stands beside it"
    assert torch.equal(PAIR.felt(torch.full((len(COMPLETIONS),), prompt), completions, ended), gold)
    fond = WalksText(replace(PAIR.config, length_bias=0.5), 0)
    felt = fond.felt(torch.full((len(COMPLETIONS),), prompt), completions, ended)
    assert felt.tolist() == pytest.approx([value + 0.5 * len(said.split()) for said, _, value in COMPLETIONS])
    harsh = WalksText(replace(PAIR.config, invalid_reward=-7.0), 0)
    assert harsh.gold(torch.tensor([prompt]), ["n1 n1"], [True]).tolist() == pytest.approx([-DISTANCE - 7])


def test_whatever_is_no_neighbour_is_a_fault():
    """From every start, each word and one that nobody knows: a step of the graph, or −1 and the walk is over."""
    graph = TASK.world.graph
    for prompt, name in enumerate(TASK.prompts):
        start = int(name.split()[1].removeprefix("n"))
        ahead = {f"n{there}" for there in graph.next_NA[start, :-1].tolist() if there < 6}
        said = (*TASK.words, "Paris")
        prompts, both = torch.full((len(said),), prompt), [f"{word} n0" for word in said]
        gold = TASK.gold(prompts, both, [True] * len(said)).tolist()
        is_over = ~TASK.read(prompts, said, [False] * len(said)).cut_B
        for word, worth, over in zip(said, gold, is_over.tolist(), strict=True):
            assert over == (word not in ahead)
            assert (worth == -1.0) == over, word


def test_walks_keep_their_worth_when_they_are_told():
    """Length and toll of every step by hand, 2 for an end at the goal; and every walk is read as what it decided."""
    graph = TASK.world.graph
    walks = walker_of("random").sample(TASK.world.pairs[EVERYWHERE.repeat(10)], draw())
    completions, ended = TASK.say(walks), walks.terminated.tolist()
    gold = TASK.gold(walks.context_id, completions, ended)
    torch.testing.assert_close(gold, (TASK.world.true_rewards(walks) * walks.mask).sum(1))
    place, toll = graph.position_N2.tolist(), graph.toll_N.tolist()
    assert any(toll)
    for row, completion in enumerate(completions):
        goal, *way = (int(word.split("n")[1]) for word in f"{TASK.prompts[walks.context_id[row]]} {completion}".split())
        expected = -sum(math.dist(place[one], place[two]) + toll[two] for one, two in itertools.pairwise(way))
        assert float(gold[row]) == pytest.approx(expected + 2.0 * (ended[row] and way[-1] == goal))
        assert ended[row] or len(way) == 1 + 4, "only the horizon cuts a walk off"
    told = TASK.read(walks.context_id, completions, ended)
    assert torch.equal(told.made_BT, walks.mask)
    assert torch.equal(told.action_BT * walks.mask, walks.data["action"])
    assert torch.equal(told.node_BT * walks.mask, walks.data["node"])
    assert torch.equal(told.cut_B, walks.truncated)


def test_the_corpus_is_of_uniform_walks_and_some_say_where_they_went():
    """Of 4,000 walks 30 % carry the node where they ended, unless they were cut off; next words are uniform."""
    task, count = WalksText(replace(SMALL, num_goals=4), 0), 4000
    graph = task.world.graph
    ways = graph.possible_NA.sum(1).tolist()
    could, labelled, surprises, stops = 0, 0, [], []
    for document in task.corpus(count, draw(1)):
        goal, *way = document.split(" ")
        assert goal in task.words[6:]
        nodes = [int(word.removeprefix("n")) for word in way]
        for one, two in itertools.pairwise(nodes):
            assert two in graph.next_NA[one, :-1].tolist()
        assert len(nodes) <= 1 + 4
        if len(nodes) < 1 + 4 and f"to:{way[-1]}" in task.words:
            could += 1
            labelled += goal != ANYWHERE
        assert goal in (ANYWHERE, f"to:{way[-1]}")
        assert goal == ANYWHERE or len(nodes) < 1 + 4, "a walk that was cut off reached nothing"
        stops.append(float(len(nodes) == 1) - 1 / ways[nodes[0]])
        if len(nodes) > 1:
            smallest = min(there for there in graph.next_NA[nodes[0], :-1].tolist())
            surprises.append(float(nodes[1] == smallest) - 1 / (ways[nodes[0]] - 1))
    assert labelled / could == pytest.approx(0.3, abs=4.5 * math.sqrt(0.21 / could))
    assert could > 1000
    for sample in (torch.tensor(stops), torch.tensor(surprises)):
        assert float(sample.mean()) == near(0.0, sample)
    for share in (0.0, 1.0):
        documents = WalksText(replace(SMALL, labelled_share=share), 0).corpus(200, draw(1))
        ended = [one for one in documents if len(one.split()) < 2 + 4]
        assert {ANYWHERE in one for one in ended} == {share == 0.0}


def frequencies(completions: Sequence[str], among: Sequence[str]) -> Tensor:
    counts = dict.fromkeys(among, 0)
    for completion in completions:
        counts[completion] += 1
    return torch.tensor(list(counts.values()), dtype=torch.float64) / len(completions)


def test_people_walk_as_in_the_exact_world_given_that_they_stop():
    """3,000 completions of one prompt by each, against every walk's probability given that it stops; the two compared
    walkers are each heard half of the time, however often they have to be drawn again."""
    who = DemonstratorConfig(temperature=0.4, slips=0.3, foresight=0.9)
    task = WalksText(replace(SMALL, horizon=3, demonstrator=who, compared_temperatures=(0.1, 50.0)), 0)
    prompt, count = task.prompts.index("to:n5 n0"), 3000
    context = task.world.pairs[torch.tensor([prompt])]

    def chances(walker: Walker) -> tuple[list[str], Tensor]:
        walks = every_walk(task.world.graph, 3, context, walker)
        walks = walks[walks.terminated]
        return task.say(walks), walks.weight / walks.weight.sum()

    texts, shown = chances(demonstrator(task.world))
    expected = {
        "demonstrate": shown,
        "expert": chances(walker_of("expert", task))[1],
        "propose": 0.5 * chances(walker_of("0.1", task))[1] + 0.5 * chances(walker_of("50", task))[1],
    }
    assert len(texts) >= 10
    for name, chance in expected.items():
        completions = getattr(task, name)(torch.full((count,), prompt), draw(2))
        limit = 4.5 * (chance * (1 - chance) / count).sqrt() + 1e-3
        assert ((frequencies(completions, texts) - chance).abs() < limit).all(), name
    pairwise = [(one - two).abs().sum() for one, two in itertools.combinations(expected.values(), 2)]
    assert min(pairwise) > 0.1, "otherwise nothing was told apart"


def test_who_never_stops_gets_a_sentence():
    """Between 40 nodes that are all neighbours, a random walker of one step stops once in 40 times."""
    wild = DemonstratorConfig(temperature=1000.0, slips=0.99)
    task = WalksText(WalksTextConfig(num_nodes=40, num_neighbours=39, horizon=1, demonstrator=wild), 0)
    with pytest.raises(
        UserError, match=r"of 1560 walks by the demonstrator did not stop within the horizon of 1 words"
    ):
        task.demonstrate(torch.arange(1560), draw())
    assert len(task.expert(torch.arange(1560), draw())) == 1560


def told_by(walker: Walker, task: WalksText = TASK, prompts: Tensor = EVERYWHERE) -> tuple[Any, Tensor]:
    """Every walk that this walker could take, as arguments of an examination, and its probability."""
    walks = every_walk(task.world.graph, task.max_words, task.world.pairs[prompts], walker)
    return (walks.context_id, task.say(walks), walks.terminated.tolist()), walks.weight


@pytest.mark.parametrize("habit", ["expert", "0.5", "uniform", "random"])
def test_a_speaker_with_a_walkers_probabilities_has_its_exact_numbers(habit: str):
    """KL per decision, regret and return over all contexts and over a few, one of them twice; all walks weighted."""
    walker, expert, world = walker_of(habit), walker_of("expert"), TASK.world
    speaker = WalkerSpeaker(TASK, walker.log_policy_HGNA)
    for prompts in (EVERYWHERE, torch.tensor([3, 17, 3, 8])):
        starts = torch.zeros_like(world.starts(world.pairs))
        where = tuple(world.pairs[prompts].data[name] for name in ("goal", "start"))
        starts.index_put_(where, torch.tensor(1 / len(prompts), dtype=torch.float64), accumulate=True)
        visits = visitation(world.graph, expert.log_policy_HGNA, starts)
        exact = float(divergence(expert.log_policy_HGNA, walker.log_policy_HGNA, visits))
        assert TASK.kl_expert(speaker, prompts) == pytest.approx(exact, abs=1e-9)
        assert (exact == 0.0) == (habit == "expert")
    said, weight = told_by(walker)
    judged = TASK.judge(speaker, *said)
    worth = world.true_value(walker.log_policy_HGNA, world.pairs)
    regret = world.true_value(expert.log_policy_HGNA, world.pairs) - worth
    assert float((weight * TASK.gold(*said)).sum()) == pytest.approx(worth, abs=1e-9)
    assert float((weight * judged.regret_B).sum()) == pytest.approx(regret, abs=1e-9)
    assert float(judged.invalid_B.max()) == 0.0
    if habit == "expert":
        assert float(judged.regret_B.abs().max()) < 1e-12, "row by row, not only on average"


def forced(walker: Walker) -> tuple[Speech, Codec]:
    """A transformer whose every next word has the probabilities of a walker: what its last block gives is replaced by
    the logarithms of those, which the output layer hands on."""
    codec = Codec(word_tokenizer(TASK.words))
    shape = Shape(layers=1, width=24, heads=2, documents=1, passes=1)
    model = small_model(ModelConfig(family="llama"), shape, len(codec.tokenizer), 16)
    model.get_output_embeddings().weight.data = torch.eye(len(codec.tokenizer), 24)
    told, first = WalkerSpeaker(TASK, walker.log_policy_HGNA), len(codec.tokenizer) - len(TASK.words)

    def instead(_: Any, given: Any, answer: Any) -> None:
        answer.last_hidden_state = torch.full_like(answer.last_hidden_state, -1e9)
        for row, tokens in enumerate(given[0].tolist()):
            words = [TASK.words[token - first] for token in tokens[1:] if token >= first]
            prompt, said = TASK.prompts.index(" ".join(words[:2])), words[2:]
            log_TV = told.log_next(torch.tensor([prompt]), [" ".join(said)])[0].float()
            columns = torch.tensor([*range(first, first + len(TASK.words)), codec.end])
            answer.last_hidden_state[row, 2 : 3 + len(said), columns] = log_TV[:, : len(columns)]

    model.base_model.register_forward_hook(instead)
    return Speech(Whole(model), Manner(end=codec.end, max_tokens=5, rows=64, tokens_per_pass=512)), codec


@pytest.mark.parametrize("habit", ["expert", "random"])
def test_a_transformer_with_a_walkers_probabilities_gets_its_numbers(habit: str):
    """Through tokens, hidden states and log-probabilities: the exact world's divergence from the expert and regret, and
    the probability of every walk."""
    walker, expert, world = walker_of(habit), walker_of("expert"), TASK.world
    speech, codec = forced(walker)
    contexts = codec.contexts(TASK.prompts)
    columns = word_columns(codec, TASK.words)
    assert columns is not None
    speaker = WordSpeaker(speech, codec, contexts, columns)
    visits = visitation(world.graph, expert.log_policy_HGNA, world.starts(world.pairs))
    exact = float(divergence(expert.log_policy_HGNA, walker.log_policy_HGNA, visits))
    assert TASK.kl_expert(speaker, EVERYWHERE) == pytest.approx(exact, abs=1e-5)
    said, weight = told_by(walker)
    best, worth = (world.true_value(one.log_policy_HGNA, world.pairs) for one in (expert, walker))
    judged = TASK.judge(speaker, *said)
    assert float((weight * judged.regret_B).sum()) == pytest.approx(best - worth, abs=1e-4)
    told = codec.trajectories(contexts[said[0]], said[1], said[2])
    with torch.no_grad():
        probability = speech.log_prob(told).sum(1).double().exp()
    torch.testing.assert_close(probability / len(EVERYWHERE), weight, atol=1e-6, rtol=1e-4)


def test_sampled_walks_agree_within_their_errors():
    walker, world = walker_of("0.5"), TASK.world
    walks = walker.sample(world.pairs[EVERYWHERE.repeat(40)], draw(3))
    said = (walks.context_id, TASK.say(walks), walks.terminated.tolist())
    speaker = WalkerSpeaker(TASK, walker.log_policy_HGNA)
    seen, regrets, gold = TASK.examine(speaker, *said), TASK.judge(speaker, *said).regret_B, TASK.gold(*said)
    best, worth = (world.true_value(one.log_policy_HGNA, world.pairs) for one in (world.expert, walker))
    assert seen["regret"] == pytest.approx(float(regrets.mean()))
    assert seen["regret"] == near(best - worth, regrets)
    assert seen["true_return"] == near(worth, gold)
    assert seen["kl_expert"] == TASK.kl_expert(speaker, EVERYWHERE.repeat(40))
    assert seen["invalid_mass"] == 0.0
    assert regrets.std() < 0.8 * gold.std(), "the whole distribution says more than the one word that was drawn"


def test_where_walks_are_too_many_the_expert_is_asked_for_some(monkeypatch: pytest.MonkeyPatch):
    """24 nodes and 12 steps: far more than 10,000 walks. The estimate is the same at every call, near the exact number,
    and exactly 0 for the expert. In a small world both ways can be gone."""
    large = WalksText(WalksTextConfig(), 0)
    prompts = torch.arange(large.num_shown)
    assert large.num_walks(large.world.pairs[prompts[:1]]) > walks_text.MOST_WALKS
    assert large.kl_expert(WalkerSpeaker(large, walker_of("expert", large).log_policy_HGNA), prompts) == 0.0
    assert TASK.num_walks(TASK.world.pairs) == len(told_by(walker_of("uniform"))[1]) < walks_text.MOST_WALKS
    monkeypatch.setattr(walks_text, "NUM_EXPERT_WALKS", 3000)
    for task in (large, TASK):
        monkeypatch.setattr(walks_text, "MOST_WALKS", 0)
        world, every = task.world, torch.arange(len(task.prompts))
        expert, walker = walker_of("expert", task), walker_of("0.5", task)
        visits = visitation(world.graph, expert.log_policy_HGNA, world.starts(world.pairs))
        exact = float(divergence(expert.log_policy_HGNA, walker.log_policy_HGNA, visits))
        seen = [task.kl_expert(WalkerSpeaker(task, walker.log_policy_HGNA), every) for _ in range(2)]
        assert seen[0] == seen[1] != exact
        assert seen[0] == pytest.approx(exact, rel=0.04)


class Gossip:
    """A speaker of any word anywhere, who remembers everything that it said."""

    def __init__(self, task: WalksText, spread: float = 1.0) -> None:
        self.task, self.spread = task, spread
        self.asked: list[int] = []

    def after(self, prompt: int, told: Sequence[str]) -> Tensor:
        digest = [prompt, *(1 + self.task.words.index(word) for word in told)]
        seed = sum(number * 17**place for place, number in enumerate(digest))
        noise = torch.randn(self.task.end + 1, generator=draw(seed), dtype=torch.float64)
        return (self.spread * noise).log_softmax(0)

    def log_next(self, prompts: Tensor, completions: Sequence[str]) -> Tensor:
        """float64[B, T + 1, V], with nonsense beyond each completion's end."""
        self.asked.append(len(completions))
        told = [completion.split() for completion in completions]
        answer = torch.full((len(told), max(map(len, told)) + 1, self.task.end + 1), 1e30, dtype=torch.float64)
        for row, (prompt, words) in enumerate(zip(prompts.tolist(), told, strict=True)):
            for place in range(len(words) + 1):
                answer[row, place] = self.after(prompt, words[:place])
        return answer

    def everything(self, prompt: int, most: int) -> Iterator[tuple[list[str], bool, float]]:
        """Each completion of at most so many words, whether it is ended, and its log-probability."""
        open_ones: list[tuple[list[str], float]] = [([], 0.0)]
        while open_ones:
            told, chance = open_ones.pop()
            if len(told) == most:
                yield told, False, chance
                continue
            following = self.after(prompt, told).tolist()
            yield told, True, chance + following[-1]
            pairs = zip(self.task.words, following[:-1], strict=True)
            open_ones += [([*told, word], chance + one) for word, one in pairs]


@pytest.mark.parametrize("most", [3, 2])
def test_the_regret_of_a_gossip_is_exact(most: int):
    """All that can be said in three words of five, or in two where completions are cut off before the horizon: weighted
    by their probabilities, the regrets add up to the expert's return less the gossip's, faults included."""
    speaker, world = Gossip(PAIR), PAIR.world
    rows = [(prompt, *one) for prompt in range(2) for one in speaker.everything(prompt, most)]
    prompts, told, ended, chance = zip(*rows, strict=True)
    weight = 0.5 * torch.tensor(chance, dtype=torch.float64).exp()
    assert len(rows) == 2 * sum(5**length for length in range(most + 1))
    assert float(weight.sum()) == pytest.approx(1.0)
    said = (torch.tensor(prompts), [" ".join(words) for words in told], ended)
    worth = float((weight * PAIR.gold(*said)).sum())
    judged = PAIR.judge(speaker, *said)
    best = world.true_value(world.expert.log_policy_HGNA, world.pairs)
    assert worth < -0.3 < best
    assert float((weight * judged.regret_B).sum()) == pytest.approx(best - worth, abs=1e-9)
    assert max(speaker.asked) == min(walks_text.MOST_ROWS, len(rows))


def test_the_divergence_of_a_gossip_is_exact():
    """Σ over prefixes of the expert's walks, by hand: P(prefix) KL(expert ‖ gossip after it) / Σ P(prefix)."""
    speaker, expert = Gossip(PAIR, spread=2.0), PAIR.world.expert.log_policy_HGNA.exp()
    total = decisions = 0.0
    for prompt, name in enumerate(PAIR.prompts):
        goal, start = (int(word[-1]) for word in name.split())
        told: list[str] = []
        node, reached = start, 1.0
        for step in range(3):
            walks, ends = expert[step, goal, node].tolist()
            following = speaker.after(prompt, told)
            divergence_here = walks * (math.log(walks) - following[1 - node])
            divergence_here += ends * (math.log(ends) - following[-1])
            total, decisions = total + reached * float(divergence_here), decisions + reached
            node, reached = 1 - node, reached * walks
            told.append(f"n{node}")
    assert PAIR.kl_expert(speaker, torch.arange(2)) == pytest.approx(total / decisions, abs=1e-9)


class Monotone:
    """A speaker of a single distribution, in single precision, as models are."""

    def __init__(self, log_V: Tensor) -> None:
        self.log_V = log_V.float()

    def log_next(self, prompts: Tensor, completions: Sequence[str]) -> Tensor:
        longest = max(len(completion.split()) for completion in completions)
        return self.log_V.expand(len(completions), longest + 1, -1)


def test_examined_by_hand():
    """Two nodes, from n0 to n1. All six next words alike: four of them are no neighbour nor the end, at every decision.

    The expert's values at the last step are V = p(−d) + (1 − p)·0 at n0 with p its chance of walking on, and near 2 at
    n1, where ending pays 2. For "n1" ended, decided at n0 and then at n1, the regret is the sum of
    V − (Q_walk + Q_end − 4) / 6 over both. "n0" is a fault at once: one decision.
    """
    flat = Monotone(torch.full((6,), 1 / 6).log())
    prompt = PAIR.prompts.index("to:n1 n0")
    expert = PAIR.world.expert.log_policy_HGNA.exp()[:, 1]
    value = {(3, 0): 0.0, (3, 1): 0.0}
    short = {}
    for step, node in itertools.product((2, 1, 0), (0, 1)):
        walks, ends = -DISTANCE + value[step + 1, 1 - node], 2.0 * (node == 1)
        value[step, node] = float(expert[step, node, 0] * walks + expert[step, node, 1] * ends)
        short[step, node] = value[step, node] - (walks + ends - 4) / 6
    for completion, ended, regret, worth in (
        ("n1", True, short[0, 0] + short[1, 1], 2 - DISTANCE),
        ("n0", True, short[0, 0], -1.0),
        ("n0 n1 n0", False, short[0, 0], -1.0),
        ("n1 n0 n1", False, short[0, 0] + short[1, 1] + short[2, 0], -3 * DISTANCE),
        ("n1", False, short[0, 0] + value[1, 1], -DISTANCE),
    ):
        seen = PAIR.examine(flat, torch.tensor([prompt]), [completion], [ended])
        assert seen["regret"] == pytest.approx(regret, abs=1e-6), completion
        assert seen["true_return"] == pytest.approx(worth)
        assert seen["invalid_mass"] == pytest.approx(4 / 6)
    assert seen["kl_expert"] > math.log(6 / 2) - 1e-6, "at least what goes to the other four words"
    nothing = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 1.0]).log()
    assert PAIR.kl_expert(Monotone(nothing), torch.tensor([prompt])) == math.inf, "the expert's words were ruled out"
    seen = PAIR.examine(Monotone(nothing), torch.tensor([prompt]), [""], [True])
    assert seen["regret"] == pytest.approx(value[0, 0]), "ending at once forgoes all that the expert gets"


class Decided:
    """A speaker that rules out whatever is all but impossible."""

    def __init__(self, speaker: WalkerSpeaker) -> None:
        self.speaker = speaker

    def log_next(self, prompts: Tensor, completions: Sequence[str]) -> Tensor:
        log_BTV = self.speaker.log_next(prompts, completions)
        return torch.where(log_BTV.exp() > 0, log_BTV, -math.inf)


def test_what_the_expert_never_does_may_be_ruled_out():
    """At a temperature of 0.001 probabilities vanish in double precision; 0 log 0 is 0."""
    task = WalksText(replace(SMALL, temperature=0.001), 0)
    expert = task.world.expert.log_policy_HGNA
    assert bool((expert[:, :, task.world.graph.possible_NA].exp() == 0).any())
    assert task.kl_expert(Decided(WalkerSpeaker(task, expert)), EVERYWHERE) == 0.0


def test_rows_do_not_depend_on_their_company(monkeypatch: pytest.MonkeyPatch):
    said, _ = told_by(walker_of("uniform"), prompts=EVERYWHERE[:4])
    speaker = Gossip(TASK)
    at_once = TASK.judge(speaker, *said), TASK.kl_expert(speaker, EVERYWHERE[:4])
    monkeypatch.setattr(walks_text, "MOST_ROWS", 7)
    speaker.asked.clear()
    in_sevens = TASK.judge(speaker, *said), TASK.kl_expert(speaker, EVERYWHERE[:4])
    assert max(speaker.asked) == 7
    assert in_sevens[1] == pytest.approx(at_once[1])
    for field in fields(at_once[0]):
        torch.testing.assert_close(getattr(in_sevens[0], field.name), getattr(at_once[0], field.name))


def test_a_walker_speaks_only_of_where_it_can_go():
    """Probabilities of next words add up to 1; a walker that has gone astray, or is at the horizon, ends."""
    speaker = WalkerSpeaker(TASK, walker_of("random").log_policy_HGNA)
    prompt = TASK.prompts.index("to:n5 n0")
    ahead = [there for there in TASK.world.graph.next_NA[0, :-1].tolist() if there < 6]
    back = f"n{ahead[0]} n0"
    log_next = speaker.log_next(torch.full((3,), prompt), ["", f"{back} {back}", "n0 n0"])
    assert log_next.shape == (3, 5, len(TASK.words) + 1)
    torch.testing.assert_close(log_next.exp().sum(-1), torch.ones(3, 5, dtype=torch.float64))
    possible = {*ahead, TASK.end}
    for row in range(3):
        assert set((log_next[row, 0] > -100).nonzero().squeeze(1).tolist()) == possible
    assert set((log_next[1, 2] > -100).nonzero().squeeze(1).tolist()) == possible
    assert not torch.equal(log_next[1, 0], log_next[1, 2]), "it tells the time"
    for row, place in ((1, 4), (2, 1), (2, 2)):
        assert float(log_next[row, place, TASK.end]) == 0.0


def test_settings_are_those_of_the_exact_world():
    """Each field that both have, with the same default, passed on; and no tensor library to read them."""
    theirs, ours = WalksConfig(), WalksTextConfig()
    shared = {field.name for field in fields(theirs)} & {field.name for field in fields(ours)}
    assert {field.name for field in fields(ours)} - shared == {"invalid_reward", "labelled_share", "length_bias"}
    assert ours.walks == theirs
    changed: dict[str, Any] = {
        "num_nodes": 9, "num_neighbours": 2, "num_goals": 4, "horizon": 5, "graph_seed": 3, "goal_reward": 1.5,
        "toll_share": 0.5, "toll": 0.2, "temperature": 0.3, "demonstrator": DemonstratorConfig(slips=0.2),
        "demonstrated_share": 0.7, "compared_temperatures": (2.0,),
    }  # fmt: skip
    assert set(changed) == shared
    assert WalksTextConfig(**changed).walks == WalksConfig(**changed)
    code = "import sys, envs.language.walks_text_config; print('torch' in sys.modules)"
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        *(({"invalid_reward": given},
           f"walks-text: invalid_reward is {given}; expected a finite number below 0, so that a word that is no "
           "neighbour pays less than ending.") for given in (0.0, 0.5, -math.inf, math.nan)),
        ({"labelled_share": 1.5}, "walks-text: labelled_share is 1.5; expected a share from 0 to 1."),
        ({"horizon": 0}, "walks: horizon is 0; expected 1 or more."),
        ({"compared_temperatures": ()}, "walks: compared_temperatures is empty; name at least one temperature."),
    ],
)  # fmt: skip
def test_impossible_settings_get_a_sentence(changes: dict[str, Any], sentence: str):
    with pytest.raises(UserError) as caught:
        WalksTextConfig(**changes)
    assert str(caught.value) == sentence
