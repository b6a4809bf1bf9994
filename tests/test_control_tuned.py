"""The defaults of every row on every robot: valid, on equal terms, and explained where they need it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from control import tuned
from envs.robots.table import ROBOTS
from experiments.bench_control_parity import BenchControlParityConfig
from experiments.compare import entries_of
from experiments.matrix import Matrix
from experiments.suites import SUITES
from experiments.train import default_config
from experiments.tuning import tries_of
from unified_irl.errors import UserError
from unified_irl.methods import METHODS


@pytest.mark.parametrize("robot", ROBOTS)
def test_every_row_is_valid_on_every_robot(robot: str) -> None:
    settings = tuned.settings(robot)
    assert settings.robot == robot
    for method in METHODS.values():
        row = tuned.row(robot, method)
        assert (row.name, len(row.phases)) == (method.name, len(method.phases))


@pytest.mark.parametrize("robot", ["pendulum", "hopper"])
def test_methods_that_climb_get_the_same_number_of_updates(robot: str) -> None:
    """A phase that learns its reward on the way climbs once more when it ends (`Learner._leave`)."""
    totals = set()
    for name in ("ml-irl", "rft", "rlhf", "aihf"):
        phases = [phase for phase in tuned.row(robot, METHODS[name]).phases if phase.policy_updates]
        totals.add(sum((phase.rounds + (phase.reward_steps > 0)) * phase.policy_updates for phase in phases))
    assert len(totals) == 1


def test_methods_that_only_descend_get_the_same_number_of_steps() -> None:
    rows = {name: tuned.row("hopper", METHODS[name]) for name in ("bc", "dpo", "direct-aihf")}
    assert {sum(phase.rounds * phase.reward_steps for phase in row.phases) for row in rows.values()} == {1000}


def test_the_demonstration_term_is_a_mean_over_steps() -> None:
    """Hopper lasts 1,000 steps: the linear term's 1/β and the sum over them are divided out."""
    row = tuned.row("hopper", METHODS["aihf"])
    assert row.phases[0].demonstration_weight == pytest.approx(row.beta / 1000)
    assert tuned.row("hopper", METHODS["direct-aihf"]).phases[0].demonstration_weight == pytest.approx(1 / 1000)


@pytest.mark.parametrize("name", ["dpo", "direct-aihf", "self-play-aihf"])
def test_likelihoods_of_segments_are_named_for_what_they_are(name: str) -> None:
    assert "contrastive preference learning" in tuned.note(tuned.row("pendulum", METHODS[name]))
    assert tuned.note(tuned.row("pendulum", METHODS["aihf"])) == ""


def test_a_schedule_that_no_longer_fits_is_told() -> None:
    row = tuned.row("pendulum", METHODS["aihf"])
    longer = replace(row, phases=(replace(row.phases[0], rounds=600),))
    assert "--method.reward-descent.total-steps 12000" in tuned.note(longer)


def test_long_runs_come_to_rest() -> None:
    """The reward first, and the networks' step sizes by the last update; nothing is remarked about that."""
    for name in ("ml-irl", "aihf"):
        config = default_config("halfcheetah", name)
        (phase,) = config.method.phases
        assert config.task.sac.settling == (
            phase.rounds * phase.policy_updates // 2,
            phase.rounds * phase.policy_updates,
        )
        assert config.method.reward_descent.total_steps == phase.rounds * phase.reward_steps * 5 // 6
        assert tuned.note(config.method) == ""
    assert tuned.expert_settings("halfcheetah").sac.settling == (0, 0)


@pytest.mark.parametrize("name", SUITES)
def test_suites_are_comparisons_that_can_be_computed(name: str) -> None:
    config = SUITES[name]
    assert len(entries_of(Matrix(config), {})) == len(config.tasks) * len(config.methods) * config.seeds
    assert config.methods[-1] == ("irft-t16-k2" if name == "irft-grid" else "aihf"), (
        "what the others are paired against"
    )
    assert not config.tune or set(tries_of(config)) == set(config.methods)


def test_a_run_on_data_alone_does_not_spend_its_time_on_examinations() -> None:
    for name in ("bc", "ml-irl", "rlhf"):
        config = default_config("hopper", name)
        num_rounds = sum(phase.rounds for phase in config.method.stages)
        assert 40 <= num_rounds / config.run.evaluate_every < 42


def test_parity_refuses_what_it_does_not_know() -> None:
    with pytest.raises(UserError, match="'ant' is not compared here; expected one of pendulum"):
        BenchControlParityConfig(tasks=("ant",))
    with pytest.raises(UserError, match="expected seeds and workers of 1 or more"):
        BenchControlParityConfig(seeds=0)
