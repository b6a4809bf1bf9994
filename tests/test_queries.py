"""Asking while learning: answers about what the policy does join the comparisons, and nothing else changes."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from control import tuned
from control.domain import ControlDomain
from envs.labeller import LabellerConfig
from envs.walks.config import WalksConfig
from envs.walks.domain import WalksDomain
from experiments import cli
from unified_irl import checkpoint, conformance
from unified_irl.conformance import ANSWERS, CHECKS, check_domain
from unified_irl.conformance_bench import Bench, same, shows
from unified_irl.contracts import Domain
from unified_irl.errors import UserError
from unified_irl.feed import stream
from unified_irl.feedback import Preferences, Provenance
from unified_irl.learner import Learner
from unified_irl.methods import METHODS, Method, Phase
from unified_irl.serialise import from_json, to_json

torch.set_num_threads(1)

TINY = WalksConfig(num_nodes=6, num_neighbours=2, horizon=5, num_demonstrations=7, num_preferences=9, reward_width=4)
NONE = replace(TINY, num_preferences=0)
WORLD = replace(TINY, reward="linear", num_demonstrations=10, num_preferences=10)
ORACLE = LabellerConfig(rationality=float("inf"))
ONLINE = Method(
    name="online",
    summary="ask about what the policy does, and climb what is learnt of it",
    reward="explicit",
    phases=(
        Phase(
            name="ask", preference="bradley-terry", policy_updates=1, practice=120, queries=4, reward_steps=3, rounds=5
        ),
    ),
)


def asking(name: str, **changes: Any) -> Method:
    """A short row of the table that asks in every phase that learns from comparisons."""
    row = METHODS[name]
    phases = tuple(
        replace(one, **({"rounds": 4, "reward_steps": 2, "queries": 3, "practice": 200, "until": "rounds"} | changes))
        if one.learns_preferences
        else replace(one, rounds=2)
        for one in row.phases
    )
    return replace(row, phases=phases, warm_start=replace(row.warm_start, rounds=2))


def learner(row: Method, config: WalksConfig = TINY, seed: int = 0) -> Learner:
    return Learner(WalksDomain(config, seed), row, seed)


def rounds(one: Learner) -> Iterator[dict[str, float]]:
    while not one.finished:
        yield one.round()


def watch(one: Learner) -> list[Preferences]:
    """Notes the comparisons of every descent step of the reward."""
    seen: list[Preferences] = []
    descend = one.reward.descend

    def noting(loss: Any, batch: Any, *given: Any) -> Any:
        seen.append(batch.preferences)
        return descend(loss, batch, *given)

    one.reward.descend = noting
    return seen


# What a round does.


def test_answers_join_what_is_learnt_from():
    """Nine comparisons to begin with and four more in each of five rounds, learnt from in the round they come in."""
    one = learner(replace(ONLINE, phases=(replace(ONLINE.phases[0], reward_steps=1),)))
    seen = watch(one)
    said = list(rounds(one))
    assert [metrics["num_asked"] for metrics in said] == [4, 8, 12, 16, 20]
    assert [len(compared) for compared in seen] == [13, 17, 21, 25, 29]
    assert len(one.preferences) == 9, "what the task holds stays as it is"
    assert {seen[-1].makers[k].source for k in seen[-1].maker.tolist()} == {"walks", "online queries"}
    assert sum(seen[-1].makers[k].source == "online queries" for k in seen[-1].maker.tolist()) == 20


def test_answers_are_about_what_the_policy_just_did():
    """The walks of a round are drawn from a named stream, so that they can be drawn again."""
    one = learner(replace(ONLINE, phases=(replace(ONLINE.phases[0], own_memory=2),)), NONE)
    did: list[Any] = []
    improve = one.policy.improve

    def noting(*given: Any) -> Any:
        metrics, own = improve(*given)
        did.append(own)
        return metrics, own

    one.policy.improve = noting
    for number in range(5):
        before = 0 if one.asked is None else len(one.asked)
        one.round()
        new = one.asked[before:]
        for side in (new.first, new.second):
            recent = [shows(side, own) for own in did[max(0, number - 1) : number + 1]]
            assert all(any(row) for row in zip(*recent, strict=True)), "of this round or the one before"


def test_no_queries_leave_no_trace():
    for name in ("rlhf", "aihf", "dpo"):
        plain, silent = (learner(asking(name, queries=0, **more)) for more in ({}, {"query_until": 5}))
        assert list(rounds(plain)) == list(rounds(silent))
        assert same(plain.state_dict(), silent.state_dict())
        assert plain.asked is None


def test_queries_change_no_other_draw():
    """Until the first answer is learnt from, all is as without: same walks, same first batch of own samples."""
    silent, asks = (learner(asking("aihf", queries=count)) for count in (0, 3))
    walks = []
    for one in (silent, asks):
        own: list[Any] = []
        descend = one.reward.descend

        def noting(loss: Any, batch: Any, *given: Any, own: list[Any] = own, go: Any = descend) -> Any:
            own.append(batch.own)
            return go(loss, batch, *given)

        one.reward.descend = noting
        one.round()
        walks.append(own[0].state_dict())
    assert same(*walks)


@pytest.mark.parametrize(("budget", "asked"), [(0, [4, 8, 12, 16, 20]), (10, [4, 8, 10, 10, 10]), (3, [3] * 5)])
def test_asking_ends_with_its_budget(budget: int, asked: list[int]):
    one = learner(replace(ONLINE, phases=(replace(ONLINE.phases[0], query_until=budget),)))
    assert [metrics["num_asked"] for metrics in rounds(one)] == asked


def test_the_budget_is_that_of_the_whole_run():
    """Two stages of three rounds that may ask for two each, seven in all."""
    phase = replace(ONLINE.phases[0], rounds=3, queries=2, query_until=7)
    one = learner(replace(ONLINE, phases=(phase, replace(phase, name="more"))))
    assert [metrics["num_asked"] for metrics in rounds(one)] == [2, 4, 6, 7, 7, 7]


def test_what_was_asked_is_learnt_from_to_the_end():
    """A later stage that asks nothing still learns from the answers."""
    phase = replace(ONLINE.phases[0], rounds=2, reward_steps=1)
    one = learner(replace(ONLINE, phases=(phase, replace(phase, name="rest", queries=0))), NONE)
    seen = watch(one)
    said = list(rounds(one))
    assert [len(compared) for compared in seen] == [4, 8, 8, 8]
    assert ["num_asked" in metrics for metrics in said] == [True, True, False, False]


# Beginning with nothing.


def test_a_method_that_asks_can_begin_without_comparisons():
    """And learns from its answers alone: the reward then tells fresh walks apart."""
    world = replace(NONE, labeller=ORACLE, reward="linear", horizon=6, num_nodes=8)
    phase = replace(ONLINE.phases[0], queries=10, practice=200, rounds=25)
    descent = replace(ONLINE.reward_descent, learning_rate=0.05)
    one = learner(replace(ONLINE, phases=(phase,), reward_descent=descent), world)
    assert one.preferences is None
    last = list(rounds(one))[-1]
    assert last["num_asked"] > 50, "fewer and fewer as the policy settles: equal walks are not compared"
    assert one.domain.evaluate(one.policy, one.reward)["reward_accuracy"] > 0.7


@pytest.mark.parametrize(
    "row",
    [
        METHODS["dpo"],
        asking("dpo", queries=0),
        asking("rlhf", until="held-out preferences"),
        replace(ONLINE, phases=(replace(ONLINE.phases[0], queries=0), *ONLINE.phases)),
    ],
    ids=["never asks", "asks for none", "sets some aside", "asks too late"],
)
def test_others_still_need_some_to_begin_with(row: Method):
    with pytest.raises(UserError, match="learns from preferences, but the task holds none"):
        learner(row, NONE)


def test_a_round_without_answers_learns_nothing_and_goes_on():
    """A single practised context has one walk, and so no pair."""
    one = learner(replace(ONLINE, phases=(replace(ONLINE.phases[0], practice=1),)), NONE)
    before = one.reward.state_dict()
    said = list(rounds(one))
    assert [metrics["num_asked"] for metrics in said] == [0] * 5
    assert "loss" not in said[0]
    assert same(before, one.reward.state_dict())


def test_every_row_that_learns_from_comparisons_can_ask():
    for name in ("rlhf", "dpo", "aihf", "direct-aihf", "self-play-aihf"):
        one = learner(asking(name), NONE)
        said = list(rounds(one))
        assert one.asked is not None
        assert len(one.asked) == 12
        assert all(isinstance(value, float) for metrics in said for value in metrics.values())


# Resuming.


@pytest.mark.parametrize(
    ("row", "config"),
    [
        (ONLINE, NONE),
        (replace(ONLINE, phases=(replace(ONLINE.phases[0], query="entropy", batch_size=3, query_until=10),)), TINY),
        (asking("aihf", own_memory=3), replace(TINY, preference_level="segment", segment_length=2)),
        (asking("self-play-aihf"), NONE),
        (asking("rlhf", until="held-out preferences", patience=9), TINY),
    ],
    ids=["from nothing", "entropy, in batches", "segments, with memory", "implicit", "rlhf"],
)
def test_resuming_is_to_the_last_bit(row: Method, config: WalksConfig, tmp_path: Path):
    """Killed between any two rounds, and started again from the checkpoint in a fresh process' place."""
    whole = learner(row, config)
    states, said = [], []
    while not whole.finished:
        states.append(checkpoint.save(tmp_path, whole.state_dict(), len(states), keep=99))
        said.append(whole.round())
    assert whole.asked is not None
    for number, saved in enumerate(states):
        resumed = learner(row, config)
        resumed.load_state_dict(checkpoint.load(saved))
        assert list(rounds(resumed)) == said[number:]
        assert same(resumed.state_dict(), whole.state_dict())


def test_a_checkpoint_from_before_there_were_queries_is_read():
    one, other = learner(asking("dpo", queries=0)), learner(asking("dpo", queries=0))
    one.round()
    state = copy.deepcopy(one.state_dict())
    del state["asked"]
    other.load_state_dict(state)
    assert list(rounds(other)) == list(rounds(one))


# Putting comparisons together.


def test_those_who_compare_are_merged():
    """Makers A, B and B, C: three in all, and every comparison still names its own."""
    held = WalksDomain(TINY, 0).preferences
    a, b, c = (Provenance(maker=name) for name in "abc")
    one = replace(held[:3], maker=torch.tensor([0, 1, 1]), makers=(a, b))
    other = replace(held[3:6], maker=torch.tensor([1, 0, 1]), makers=(b, c))
    both = Preferences.cat([one, other]).validated()
    assert both.makers == (a, b, c)
    assert [both.makers[k].maker for k in both.maker.tolist()] == ["a", "b", "b", "c", "b", "c"]


def test_levels_are_not_mixed():
    """A file of whole walks in a world that asks about segments."""
    domain = WalksDomain(replace(TINY, preference_level="segment"), 0)
    domain.preferences = WalksDomain(TINY, 0).preferences
    with pytest.raises(UserError, match="comparisons of level 'whole' and asks for those of level 'segment'"):
        Learner(domain, ONLINE, 0).round()


# The graph world.


def walked(count: int = 60, **changes: Any) -> tuple[WalksDomain, Any, Any]:
    domain = WalksDomain(replace(TINY, **({"labeller": ORACLE} | changes)), 0)
    parts = domain.build(METHODS["aihf"])
    contexts = domain.contexts[torch.arange(count) % 6]
    return domain, parts.policy.sample(contexts, stream(0, "walks")), parts.reward


def returns_of(domain: WalksDomain, side: Any) -> torch.Tensor:
    return (domain.world.true_rewards(side) * side.rewarded).sum(1)


def test_whole_walks_meet_in_their_context_and_differ():
    domain, own, reward = walked()
    answers = domain.ask(own, reward, 20, ONLINE.phases[0], 1.0, stream(0)).validated()
    assert len(answers) == 20
    assert torch.equal(answers.first.context_id, answers.second.context_id)
    apart = (answers.first.data["node"] != answers.second.data["node"]) | (answers.first.mask != answers.second.mask)
    apart |= answers.first.data["action"] != answers.second.data["action"]
    assert apart.any(1).all()
    first, second = (returns_of(domain, side) for side in (answers.first, answers.second))
    clear = (first - second).abs() > 1e-9
    assert clear.any()
    assert torch.equal(answers.label[clear], (first > second)[clear].double())
    assert domain.ask(own[:6], reward, 20, ONLINE.phases[0], 1.0, stream(0)) is None, "one walk in each context"
    assert domain.ask(own[torch.zeros(9, dtype=torch.long)], reward, 20, ONLINE.phases[0], 1.0, stream(0)) is None


@pytest.mark.parametrize(("level", "num_steps"), [("step", 1), ("segment", 2)])
def test_pieces_of_walks_are_compared_across_contexts(level: str, num_steps: int):
    domain, own, reward = walked(preference_level=level, segment_length=2)
    answers = domain.ask(own, reward, 30, ONLINE.phases[0], 1.0, stream(0)).validated()
    assert answers.level == level
    assert answers.first.num_steps == num_steps
    assert not torch.equal(answers.first.context_id, answers.second.context_id)


def test_entropy_asks_about_the_closest_pairs():
    """The reward of these walks is learnt a little first, so that it tells them apart; the closest are far closer."""
    domain, own, _ = walked(600)
    one = learner(asking("aihf", queries=0), TINY)
    list(rounds(one))

    def gap(query: Any) -> float:
        phase = replace(ONLINE.phases[0], query=query)
        answers = domain.ask(own, one.reward, 10, phase, 1.0, stream(0))
        with torch.no_grad():
            first, second = ((one.reward(side) * side.rewarded).sum(1) for side in (answers.first, answers.second))
        return float((first - second).abs().mean())

    assert gap("entropy") < 0.2 * gap("uniform")


def test_walks_have_no_members_that_disagree():
    row = replace(ONLINE, phases=(replace(ONLINE.phases[0], query="disagreement"),))
    with pytest.raises(UserError, match="no members that could disagree"):
        learner(row).round()


# What a row may say.


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: replace(METHODS["bc"].phases[0], queries=1),
         "phase 'clone' asks for comparisons, but learns from none; let preference be bradley-terry, with "
         "preference_weight and reward_steps above 0, or let queries be 0."),
        (lambda: replace(METHODS["aihf"].phases[0], queries=1, preference_weight=0.0),
         "phase 'joint' asks for comparisons, but learns from none; let preference be bradley-terry, with "
         "preference_weight and reward_steps above 0, or let queries be 0."),
        (lambda: replace(METHODS["dpo"].phases[0], queries=1),
         "phase 'direct' asks about what the policy does, but nothing says where: without own samples for "
         "demonstrations it needs practice, a number of contexts above 0."),
        (lambda: METHODS["dpo"].with_phases(queries=1, practice=4, query="entropy"),
         "phase 'direct' asks by entropy, which takes an explicit reward, but method 'dpo' has none; let query be "
         "uniform."),
        (lambda: METHODS["aihf"].with_phases(queries=-1), "phase 'joint': queries is -1; expected 0 or more."),
        (lambda: METHODS["aihf"].with_phases(query_until=-1), "phase 'joint': query_until is -1; expected 0 or more."),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_gets_a_sentence(make: Callable[[], Any], sentence: str):
    with pytest.raises(UserError) as caught:
        make()
    assert str(caught.value) == sentence


def test_the_columns_are_data_and_flags(capsys: pytest.CaptureFixture[str]):
    """They survive JSON, an older row that lacks them asks nothing, and the command line explains them."""
    row = METHODS["aihf"].with_phases(queries=7, query="disagreement", query_until=50)
    assert from_json(Method, to_json(row), "a row") == row
    old = to_json(METHODS["aihf"])
    for name in ("queries", "query", "query_until"):
        del old["phases"][0][name]
    assert from_json(Method, old, "an old row") == METHODS["aihf"]
    with pytest.raises(SystemExit):
        cli.run(["train", "walks", "aihf", "--help"])
    said = capsys.readouterr().out
    for flag in ("queries", "query", "query-until"):
        assert f"--method.phases.0.{flag} " in said


# The conformance of who answers.


def test_the_graph_world_answers_as_it_should():
    for changes in ({}, {"preference_level": "segment"}, {"preference_level": "step"}, {"num_preferences": 0}):
        domain = WalksDomain(replace(WORLD, **changes), 0)
        passed = check_domain(domain, [METHODS["aihf"]], somebody_answers=True)
        assert len(passed) == len(CHECKS) + len(ANSWERS)


def tiny_pendulum(**people: Any) -> Any:
    config = tuned.settings("pendulum")
    return replace(
        config,
        sac=replace(config.sac, hidden=(16,), learning_starts=50, critic_warmup=0, batch_size=16, precision="float32"),
        people=replace(config.people, **({"num_preferences": 8, "num_compared_episodes": 1} | people)),
        reward=replace(config.reward, num_members=2, hidden=(8,), penalty_points=8),
        num_examined=1,
    )


@pytest.mark.parametrize("name", ["aihf", "self-play-aihf"])
def test_pendulum_answers_as_it_should(name: str):
    domain = ControlDomain(tiny_pendulum(), 0)
    for check in ANSWERS:
        check(Bench(domain, METHODS[name], seed=0, chosen=False))


class AnswersTooMuch(WalksDomain):
    def ask(self, own: Any, reward: Any, count: int, *rest: Any) -> Any:
        return super().ask(own, reward, count + 1, *rest)


class AnswersAboutOthers(WalksDomain):
    def ask(self, own: Any, *rest: Any) -> Any:
        twice = self.contexts[self.contexts.ids.repeat(2)]
        return super().ask(self.build(METHODS["bc"]).policy.sample(twice, stream(1)), *rest)


class AnswersTwice(WalksDomain):
    def ask(self, *given: Any) -> Any:
        answers = super().ask(*given)
        return replace(answers, label=answers.label + 1.0)


class AnswersAtAnotherLevel(WalksDomain):
    def ask(self, *given: Any) -> Any:
        return replace(super().ask(*given), level="segment")


class NobodyAnswers(WalksDomain):
    def ask(self, *given: Any) -> Any:
        return None


class AsksAtRandom(WalksDomain):
    def ask(self, *given: Any) -> Any:
        return super().ask(*given[:-1], torch.default_generator)


class AsksTheSameAgain(WalksDomain):
    def ask(self, *given: Any) -> Any:
        return super().ask(*given[:-1], stream(0))


class ScribblesOnWhatWasDone(WalksDomain):
    def ask(self, own: Any, *rest: Any) -> Any:
        answers = super().ask(own, *rest)
        own.weight.mul_(0.5)
        return answers


class LearnsWhileAsking(WalksDomain):
    def ask(self, own: Any, reward: Any, *rest: Any) -> Any:
        answers = super().ask(own, reward, *rest)
        if hasattr(reward, "scores"):
            with torch.no_grad():
                for parameter in reward.scores.parameters():
                    parameter.add_(0.1)
        return answers


@pytest.mark.parametrize(
    ("check", "domain"),
    [
        *(("answers_are_about_what_was_done", world) for world in
          (AnswersTooMuch, AnswersAboutOthers, AnswersTwice, AnswersAtAnotherLevel, NobodyAnswers)),
        *(("answers_depend_on_the_generator", world) for world in (AsksAtRandom, AsksTheSameAgain)),
        *(("asking_changes_nothing", world) for world in (ScribblesOnWhatWasDone, LearnsWhileAsking)),
    ],
)  # fmt: skip
def test_a_broken_promise_is_caught(check: str, domain: type[WalksDomain]):
    world = domain(WORLD, 0)
    assert isinstance(world, Domain)
    with pytest.raises((AssertionError, UserError)):
        getattr(conformance, check)(Bench(world, METHODS["aihf"], seed=0, chosen=True))
    with pytest.raises(AssertionError, match=r"^(answers|asking)_[a-z_]+ \(aihf\): .+"):
        check_domain(world, [METHODS["aihf"]], somebody_answers=True)


# The control world, from the command line.

PENDULUM = """--task.people.num-preferences 0 --task.people.segment-length 25 --task.sac.hidden 16
--task.sac.learning-starts 50 --task.sac.batch-size 16 --task.reward.num-members 3 --task.reward.hidden 8
--task.reward.penalty-points 8 --task.num-examined 1 --method.warm-start.rounds 2 --method.phases.0.rounds 3
--method.phases.0.until rounds --method.phases.0.policy-updates 200 --method.phases.0.practice 1
--method.phases.0.own-memory 2 --method.phases.0.queries 4 --method.phases.0.query disagreement
--method.phases.1.rounds 1 --method.phases.1.policy-updates 20 --run.checkpoint-every 1 --run.evaluate-every 9
--tracking.progress quiet"""


def test_pendulum_asks_while_it_learns_and_resumes_to_the_last_bit(tmp_path: Path):
    """rlhf whose reward is fitted to nothing but what the teacher says of the policy. A run that is killed after its
    third round and resumed in a new process writes the same metrics and ends with the same answers."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert cli.run(["train", "pendulum", "rlhf", *PENDULUM.split(), "--out", str(whole)]) == 0
    lines = (whole / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line).get("num_asked") for line in lines] == [None, None, 4.0, 8.0, 12.0, None]
    killed = (
        "import os, sys; from unified_irl.learner import Learner; from experiments import cli; go = Learner.round\n"
        "def round_(self):\n    if self.num_rounds == 4: os._exit(9)\n    return go(self)\n"
        "Learner.round = round_; cli.run(sys.argv[1:])"
    )
    words = [sys.executable, "-c", killed, "train", "pendulum", "rlhf", *PENDULUM.split(), "--out", str(cut)]
    assert subprocess.run(words, capture_output=True).returncode == 9
    assert checkpoint.counter_of(checkpoint.latest(cut / "checkpoints")) == 4
    assert cli.run(["resume", str(cut)]) == 0
    ends = [checkpoint.load(checkpoint.latest(path / "checkpoints"))["learner"] for path in (whole, cut)]
    assert len(ends[0]["asked"]["label"]) == 12
    assert same(*ends)
