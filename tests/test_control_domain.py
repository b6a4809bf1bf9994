"""Robot tasks as domains: the core's promises, every row of the table, examinations, and feedback from files."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Command
from robots import SHORT, noise_episodes, tiny_config, tiny_row, write_experts, write_files
from stable_baselines3 import SAC
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from control import tuned
from control.config import ControlConfig
from control.domain import ControlDomain
from control.ground_truth import GroundTruth, TrueSteps
from control.policy import ControlPolicy
from envs.labeller import LabellerConfig
from envs.robots import snapshots
from envs.robots.config import PeopleConfig
from envs.robots.episodes import trajectories, with_absorbing
from envs.robots.people import felt_return
from envs.robots.rollout import roll_out
from envs.robots.simulators import make
from experiments.tasks import task as known_task
from unified_irl.conformance import CHECKS, check_domain
from unified_irl.conformance_bench import reloaded, same
from unified_irl.errors import UserError
from unified_irl.feed import stream
from unified_irl.feedback_files import save_preferences
from unified_irl.implicit import ImplicitReward
from unified_irl.learner import Learner
from unified_irl.methods import METHODS, Method

torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def experts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Perceptrons of random weights take the place of the experts that come with the tasks."""
    folder = tmp_path_factory.mktemp("experts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshots, "DATA", folder)
        for name in ("pendulum", "hopper", SHORT):
            write_experts(name, folder)
        yield folder


# The promises


def promises_are_kept(config: ControlConfig, *methods: str) -> None:
    config = replace(config, num_examined=8)  # as many simulators act side by side
    rows = [tuned.row(config.robot, METHODS[name]) for name in methods]
    kept = check_domain(ControlDomain(config, 0), rows, contexts_are_chosen=False)
    assert kept == [f"{check.__name__} ({row.name})" for row in rows for check in CHECKS]


@pytest.mark.parametrize("method", ["aihf", "self-play-aihf"])
def test_a_pendulum_keeps_every_promise(method: str) -> None:
    promises_are_kept(tiny_config(SHORT), method)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["aihf", "self-play-aihf", "rlhf"])
@pytest.mark.parametrize(
    "sac",
    [
        {},
        {"normalise_observations": True, "demonstrated_share": 0.25, "n_step": 3},
        {"anchor": "reference", "num_simulators": 2, "reset_critics_above": 0.5},
    ],
)
@pytest.mark.parametrize("name", ["pendulum", "hopper"])
def test_robots_keep_every_promise_however_they_practise(name: str, sac: dict[str, Any], method: str) -> None:
    promises_are_kept(tiny_config(name, **sac), method)


# The rows


def finished(domain: ControlDomain, row: Method) -> Learner:
    learner = Learner(domain, row, 0)
    while not learner.finished:
        metrics = learner.round()
        assert all(math.isfinite(value) for value in metrics.values()), metrics
    return learner


@pytest.mark.parametrize("name", [pytest.param("pendulum", marks=pytest.mark.slow), SHORT, "hopper"])
def test_every_row_runs(name: str) -> None:
    """Two rounds of each phase of each row, an examination, and a checkpoint that brings everything back."""
    usual = tiny_config(name)
    domain = ControlDomain(replace(usual, people=replace(usual.people, num_demonstrations=2)), 0)
    for method in METHODS:
        row = replace(tiny_row(method), gamma=1.0)
        learner = finished(domain, row)
        scores = domain.evaluate(learner.policy, learner.learnt_reward)
        assert all(math.isfinite(value) for value in scores.values()), method
        again = Learner(domain, row, 0)
        again.load_state_dict(reloaded([learner.state_dict()])[0])
        assert same(again.state_dict(), learner.state_dict()), method
        assert domain.evaluate(again.policy, again.learnt_reward) == scores, method


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pendulum", "hopper", "halfcheetah", "reacher", "inverted-pendulum"])
def test_tuned_rows_run_as_they_are(name: str, experts: Path) -> None:
    """With the step sizes, windows and sizes that the command line starts from; only shorter."""
    write_experts(name, experts)
    usual = tuned.settings(name)
    config = replace(usual, num_examined=2, sac=replace(usual.sac, learning_starts=200, hidden=(32, 32)))
    domain = ControlDomain(config, 0)
    for method in METHODS.values():
        row = tuned.row(name, method)
        phases = tuple(replace(one, rounds=2, policy_updates=min(one.policy_updates, 100)) for one in row.phases)
        learner = finished(domain, replace(row, phases=phases, warm_start=replace(row.warm_start, rounds=2)))
        assert math.isfinite(domain.evaluate(learner.policy, learner.learnt_reward)["score"])


def test_runs_of_one_seed_are_alike_and_of_two_are_not() -> None:
    ends = []
    for seed in (0, 0, 1):
        domain = ControlDomain(tiny_config("hopper"), seed)
        learner = Learner(domain, tiny_row("ml-irl"), seed)
        torch.manual_seed(len(ends))
        learner.round()
        ends.append(learner.state_dict())
    assert same(ends[0], ends[1])
    assert not same(ends[0], ends[2])


# Examinations


def test_an_examination_tells_returns_scores_and_agreement() -> None:
    domain = ControlDomain(tiny_config("pendulum"), 0)
    parts = domain.build(tiny_row("ml-irl"))
    metrics = domain.evaluate(parts.policy, parts.reward)
    assert {"return", "return_std", "stochastic_return", "length", "score", "stochastic_score"} < metrics.keys()
    assert {"demonstration_nll", "reward/step_pearson", "reward/return_spearman"} < metrics.keys()
    assert metrics["length"] == 200.0
    # Random actions at −1197.2, the expert of these tests at 1,000.
    assert metrics["score"] == pytest.approx((metrics["return"] + 1197.2) / 2197.2)
    shown = domain.demonstrations
    assert shown is not None
    chosen = parts.policy.log_prob(shown.trajectories)[shown.trajectories.mask].detach()
    assert metrics["demonstration_nll"] == pytest.approx(-float(chosen.mean()), rel=1e-5)
    assert domain.evaluate(parts.policy, parts.reward) == metrics, "an examination is always the same"
    assert domain.evaluate(parts.policy.frozen(), None) == {k: v for k, v in metrics.items() if "reward/" not in k}


def test_returns_are_those_that_stable_baselines3_measures(tmp_path: Path) -> None:
    """Episodes of one start each, seeded alike, of the exported policy."""
    domain = ControlDomain(tiny_config("hopper"), 0)
    policy = domain.build(tiny_row("ml-irl")).policy
    assert isinstance(policy, ControlPolicy)
    policy.save(tmp_path / "policy.zip")
    plain, returns = SAC.load(tmp_path / "policy.zip", device="cpu"), []
    ours = roll_out(policy.acting(None), domain.helpers, 3, stream(3, "seeds"))
    for seed in torch.randint(2**31 - 1, (3,), generator=stream(3, "seeds")).tolist():
        env = DummyVecEnv([lambda: Monitor(make("hopper"))])
        env.seed(seed)
        returns += evaluate_policy(plain, env, n_eval_episodes=1, return_episode_rewards=True)[0]
    np.testing.assert_allclose([one.rewards.sum() for one in ours], returns, rtol=1e-3)


def test_a_reward_that_says_nothing_can_be_examined() -> None:
    """The implicit reward of a policy that is its own reference is zero everywhere: no correlation, but no NaN."""
    domain = ControlDomain(tiny_config("pendulum"), 0)
    policy = domain.build(tiny_row("spin")).policy
    metrics = domain.evaluate(policy, ImplicitReward(policy, policy.frozen(), 1.0))
    assert all(math.isfinite(value) for value in metrics.values())
    assert not any("pearson" in name for name in metrics)


def test_the_task_itself_can_pay() -> None:
    """Under the ground truth nothing is learnt but the policy; a row that learns a reward is told so."""
    config = replace(tiny_config("pendulum"), learn_from="ground truth")
    domain = ControlDomain(config, 0)
    learner = finished(domain, replace(tuned.EXPERT, phases=tiny_row("rlhf").phases[1:]))
    assert isinstance(learner.reward, GroundTruth)
    assert isinstance(learner.policy, ControlPolicy)
    assert learner.policy.trainer.num_updates == 60
    replay = learner.policy.trainer.replay
    drawn = replay.transitions(torch.arange(20), learner.reward.for_policy(), 0.9, 1)
    assert torch.equal(drawn.reward, replay.rows[:20, -3])
    assert float(drawn.reward.max()) < 0.0
    assert "reward/step_pearson" not in domain.evaluate(learner.policy, learner.learnt_reward)
    with pytest.raises(UserError, match="use it with a row whose phases only practise"):
        finished(domain, tiny_row("ml-irl"))


# The data


def test_absorbing_steps_follow_only_where_they_are_asked_for() -> None:
    """Demonstrations of the hopper end in a fall; with absorbing steps each stands for 1,000 steps."""
    usual = tiny_config("hopper")
    for ends, expected in (("absorbing", 1000.0), ("as they come", None)):
        reward = replace(usual.reward, absorbing=ends == "absorbing")
        shown = ControlDomain(replace(usual, ends=ends, reward=reward), 0).demonstrations  # type: ignore[arg-type]
        assert shown is not None
        behaviours = shown.validated().trajectories
        steps = behaviours.mask.sum(1) + behaviours.data["absorbing"].sum(1)
        assert bool((behaviours.context_id == 0).all())
        assert bool(behaviours.terminated.all())
        assert torch.equal(steps, torch.full((8,), expected) if expected else behaviours.mask.sum(1).float())


def test_worlds_that_never_end() -> None:
    domain = ControlDomain(replace(tiny_config("hopper"), ends="fixed horizon"), 0)
    own = domain.build(tiny_row("ml-irl")).policy.sample(domain.contexts, torch.Generator().manual_seed(0))
    assert (own.num_steps, bool(own.truncated.all()), bool(own.terminated.any())) == (1000, True, False)
    with pytest.raises(UserError, match="cannot be told to go on after a fall"):
        ControlDomain(replace(tiny_config("pendulum"), ends="fixed horizon"), 0).helpers  # noqa: B018


@pytest.mark.parametrize("name", ["pendulum", "hopper"])
def test_feedback_from_files(name: str, tmp_path: Path) -> None:
    """Episodes and comparisons as other programs write them are what is learnt from; nothing else is touched."""
    config = replace(tiny_config(name), people=write_files(name, tmp_path))
    domain = ControlDomain(config, 0)
    shown, compared = domain.demonstrations, domain.preferences
    assert shown is not None
    assert compared is not None
    given, mask = trajectories(noise_episodes(name, 8)), shown.trajectories.mask
    for field in ("observation", "action", "next_observation", "true_reward"):
        assert torch.equal(shown.trajectories.data[field][mask], given.data[field][given.mask])
    assert (len(compared), compared.first.num_steps) == (8, 5)
    assert torch.equal(compared.first.data["observation"][:, 0], given.data["observation"][:, 0])
    finished(domain, tiny_row("aihf"))


def test_no_feedback_is_none_and_methods_say_what_they_miss() -> None:
    usual = tiny_config("pendulum")
    domain = ControlDomain(replace(usual, people=replace(usual.people, num_demonstrations=0, num_preferences=0)), 0)
    assert domain.demonstrations is None
    assert domain.preferences is None
    for method, missing in (("bc", "demonstrations"), ("dpo", "preferences")):
        with pytest.raises(UserError, match=f"learns from {missing}, but the task holds none"):
            Learner(domain, tiny_row(method), 0)


def test_mistakes_are_told_in_a_sentence(tmp_path: Path) -> None:
    usual = tiny_config("pendulum")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="no CUDA device can be used"):
            ControlDomain(replace(usual, device="cuda"), 0)
    with pytest.raises(UserError, match=r"comes without policies .* experts ant"):
        ControlDomain(replace(usual, robot="ant"), 0).demonstrations  # noqa: B018
    moving = ControlDomain(replace(usual, sac=replace(usual.sac, temperature="auto")), 0)
    with pytest.raises(UserError, match="ml-irl moves the reward while the policy climbs it"):
        Learner(moving, tiny_row("ml-irl"), 0)
    with pytest.raises(UserError, match=r"labeller is that of the teacher custom, but teacher is oracle"):
        PeopleConfig(labeller=LabellerConfig(mistake=0.3))
    people = write_files("pendulum", tmp_path)
    alone = replace(people, demonstrations_file="")
    with pytest.raises(UserError, match=r"name the file that holds them as people.compared_file"):
        ControlDomain(replace(usual, people=alone), 0).preferences  # noqa: B018
    with pytest.raises(UserError, match="observation"):
        ControlDomain(replace(tiny_config("hopper"), people=people), 0).demonstrations  # noqa: B018


def test_comparisons_say_what_an_end_is_worth() -> None:
    """With absorbing steps, a segment that runs into a fall goes on in them, so that every segment covers 8 steps; as
    they come, segments end where the episode did."""
    config = tiny_config("hopper")
    people_ = replace(config.people, num_preferences=64, segment_length=8, num_compared_episodes=2)
    for ends in ("absorbing", "as they come"):
        compared = ControlDomain(replace(config, people=people_, ends=ends), 0).preferences
        assert compared is not None
        covered = compared.first.mask.sum(1) + compared.first.data["absorbing"].sum(1)
        assert bool((compared.first.data["absorbing"] > 0).any()) == (ends == "absorbing")
        if ends == "absorbing":
            assert covered.tolist() == [8.0] * len(compared)


def collected(task: str, tmp_path: Path) -> tuple[ControlDomain, Path]:
    domain, path = ControlDomain(tiny_config(task), 0), tmp_path / f"{task}.safetensors"
    assert domain.preferences is not None
    save_preferences(path, domain.preferences)
    return domain, path


@pytest.mark.parametrize("task", ["pendulum", "hopper"])
def test_collected_preferences_are_read_again(task: str, tmp_path: Path) -> None:
    domain, path = collected(task, tmp_path)
    again = ControlDomain(replace(domain.config, people=replace(domain.config.people, preferences_file=str(path))), 1)
    assert again.preferences is not None
    assert domain.preferences is not None
    assert torch.equal(again.preferences.label, domain.preferences.label)
    for one, other in ((again.preferences.first, domain.preferences.first),
                       (again.preferences.second, domain.preferences.second)):  # fmt: skip
        assert torch.equal(one.mask, other.mask)
        assert torch.equal(one.data["action"], other.data["action"])
        assert torch.equal(one.data["absorbing"], other.data["absorbing"])


def test_collected_tables_refer_to_their_episodes(command: Command) -> None:
    """A table of comparisons and the episodes beside it are the comparisons that the task would have given, those that
    run into an end and those that a teacher skipped included."""
    given = ["--task.people.segment-length", "8", "--task.people.num-preferences", "40"]
    given += ["--task.people.teacher", "skip"]
    said = command("collect", "hopper", "data", "--comparisons", "parquet", *given)
    assert said.code == 0, said.err
    assert not Path("data/preferences.safetensors").exists()
    config = tuned.settings("hopper")
    own = replace(config.people, segment_length=8, num_preferences=40, teacher="skip")
    read = replace(own, preferences_file="data/preferences.parquet", compared_file="data/compared.npz")
    one, other = (ControlDomain(replace(config, people=who), 0).preferences for who in (own, read))
    assert one is not None
    assert other is not None
    assert bool((one.first.data["absorbing"] > 0).any())
    assert torch.equal(one.label, other.label)
    for here, there in ((one.first, other.first), (one.second, other.second)):
        for name in here.data:
            torch.testing.assert_close(here.data[name], there.data[name].to(here.data[name].dtype))
        assert torch.equal(here.rewarded, there.rewarded)
    alone = command("train", "hopper", "dpo", "--task.people.preferences-file", "data/preferences.parquet")
    assert "name the file that holds them as people.compared_file" in alone.sentence
    longer = ["--comparisons", "parquet", "--task.people.segment-length", "900"]  # than any episode
    assert command("collect", "hopper", "longer", *longer).code == 0


def test_preferences_of_another_world_are_refused(tmp_path: Path) -> None:
    _, path = collected("pendulum", tmp_path)
    usual = tiny_config("hopper")
    with pytest.raises(UserError, match=r"'observations' has 3 dimensions but the task has 11"):
        ControlDomain(replace(usual, people=PeopleConfig(preferences_file=str(path))), 0).preferences  # noqa: B018
    walks = known_task("walks").build(known_task("walks").settings(), 0).preferences
    assert walks is not None
    save_preferences(tmp_path / "walks", walks)
    with pytest.raises(UserError, match=r"'observation' is missing; .* another world"):
        ControlDomain(replace(usual, people=PeopleConfig(preferences_file=str(tmp_path / "walks"))), 0).preferences  # noqa: B018


def test_what_is_not_learnt_from_need_not_be_there(tmp_path: Path) -> None:
    """A task without people of its own, a method of comparisons alone: nobody misses demonstrations, not even the
    examination."""
    people = replace(write_files("inverted-pendulum", tmp_path), demonstrations_file="")
    people = replace(people, compared_file=str(tmp_path / "shown.npz"))
    domain = ControlDomain(replace(tiny_config("inverted-pendulum"), people=people), 0)
    learner = Learner(domain, replace(tiny_row("dpo"), init="base"), 0).learn()
    assert "demonstration_nll" not in domain.evaluate(learner.policy, learner.learnt_reward)


def test_the_myopic_feel_a_fall_as_if_it_were_written_out() -> None:
    """A segment that falls after 10 of 50 steps, with its 40 absorbing ones in one column or in forty."""
    episode = noise_episodes("pendulum", 1)[0]
    cut = replace(
        episode, observations=episode.observations[:11], actions=episode.actions[:10], rewards=np.ones(10, np.float32),
        terminated=True, truncated=False,
    )  # fmt: skip
    fallen = with_absorbing(trajectories([cut]), 50)
    written_out = sum(0.9 ** (49 - t) for t in range(10))
    assert float(felt_return(fallen, 0.9)) == pytest.approx(written_out, rel=1e-5)


def test_practice_begins_where_a_file_says_somebody_was(tmp_path: Path) -> None:
    """The states are found from the observations, and show them again; a pendulum that is none of MuJoCo's has none."""
    usual = tiny_config("hopper", demonstrated_starts=0.5)
    domain = ControlDomain(replace(usual, people=write_files("hopper", tmp_path, 2)), 0)
    policy = domain.build(tiny_row("ml-irl")).policy
    assert isinstance(policy, ControlPolicy)
    assert domain.demonstrations is not None
    states, seen = policy.trainer.practice.demonstrated, domain.demonstrations.trajectories
    observed = seen.data["observation"][seen.mask].numpy()
    assert states is not None
    assert len(states) == len(observed)
    for step in (0, 7, len(states) - 1):
        np.testing.assert_allclose(domain.helpers[0].reset_to(states[step], 0), observed[step], atol=1e-3)
    with pytest.raises(UserError, match=r"only MuJoCo's robots have; pendulum is none"):
        ControlDomain(tiny_config("pendulum", demonstrated_starts=0.5), 0).build(tiny_row("ml-irl"))


def test_practice_begins_where_somebody_was(experts: Path) -> None:
    """Half of the episodes begin in a demonstrated state; what comes of those is nobody's own behaviour, and the rest
    is handed back whole, also after a checkpoint between two rounds."""
    config = tiny_config("hopper", demonstrated_starts=0.5, learning_starts=0)
    domains = [ControlDomain(config, 0) for _ in range(2)]
    one, other = (domain.build(tiny_row("ml-irl")).policy for domain in domains)
    assert isinstance(one, ControlPolicy)
    assert isinstance(other, ControlPolicy)
    practice, began = one.trainer.practice, []
    assert practice.demonstrated is not None
    begin = practice._begin

    def noted(simulator: Any, generator: Any) -> Any:
        record = begin(simulator, generator)
        began.append((record.is_whole, simulator.physics()))
        return record

    practice._begin = noted  # type: ignore[method-assign]
    draw = stream(0, "test")
    _, episodes = one.trainer.train(TrueSteps(), 0.1, 0.99, 1500, draw)
    elsewhere = [physics for is_whole, physics in began if not is_whole]
    assert len(began) > 40
    assert abs(len(elsewhere) - len(began) / 2) < 2.0 * math.sqrt(len(began))  # four deviations
    for physics in elsewhere:
        assert np.abs(practice.demonstrated - physics).max(1).min() < 1e-6
    assert len(episodes) == len(began) - len(elsewhere) - practice.records[0].is_whole  # which is not over yet
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    again = [stream(1, "test") for _ in range(2)]
    ends = [
        who.trainer.train(TrueSteps(), 0.1, 0.99, 200, generator)[1]
        for who, generator in zip((one, other), again, strict=True)
    ]
    assert [len(episode) for episode in ends[0]] == [len(episode) for episode in ends[1]]
    assert all(np.array_equal(a.observations, b.observations) for a, b in zip(*ends, strict=True))
