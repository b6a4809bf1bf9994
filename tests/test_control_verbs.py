"""What a user does with a finished run of a robot task: take its policy and reward elsewhere, film it, move its reward.

Everything goes through the console's `main`, on runs that are tiny but real.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from commands import Command, Refused
from safetensors.torch import load_file, save_file
from stable_baselines3 import SAC

from control import experts, transfer, tuned
from control.config import ControlConfig
from control.domain import ControlDomain
from control.experts import ExpertDomain
from control.export_reward import LearntReward, load_reward, reward_function, save_reward
from control.files.demonstrations import write_demonstrations
from control.policy import random_entropy
from control.transfer import Lesson, lesson
from envs.robots import snapshots
from envs.robots.episodes import trajectories
from envs.robots.rollout import roll_out
from envs.robots.simulators import Simulator
from experiments import cli
from experiments.robot_runs import NOBODY, load_robot_run
from experiments.train import default_config, train
from experiments.verbs.transfer import Flags, cells_of
from unified_irl import checkpoint
from unified_irl.errors import Diverged
from unified_irl.feed import stream
from unified_irl.feedback import Demonstrations, Provenance
from unified_irl.methods import METHODS
from unified_irl.statistics import mean_interval, paired_difference
from unified_irl.tracking import TrackingConfig

NETWORKS: dict[str, Any] = {
    "learning_starts": 50, "critic_warmup": 0, "hidden": (16, 16), "precision": "float32", "batch_size": 32,
}  # fmt: skip
ELSEWHERE = "import sys; sys.modules.update(dict.fromkeys(['unified_irl', 'envs', 'control', 'experiments']))\n"
"""A machine that has never heard of this project."""


def small(robot: str) -> ControlConfig:
    """A robot with next to no networks, that nobody shows anything."""
    usual = tuned.settings(robot)
    return replace(usual, people=NOBODY, sac=replace(usual.sac, **NETWORKS), num_examined=2)


def trained(path: Path, robot: str, method: str, **sac: Any) -> Path:
    """Two rounds of a few updates, on two demonstrations and eight comparisons."""
    config = default_config(robot, method)
    task = small(robot)
    task = replace(
        task,
        people=replace(
            config.task.people, num_demonstrations=2, num_preferences=8, num_compared_episodes=1, segment_length=10
        ),
        sac=replace(task.sac, **sac),
    )
    row = replace(config.method, warm_start=replace(config.method.warm_start, rounds=2))
    row = replace(
        row, phases=tuple(replace(one, policy_updates=min(60, one.policy_updates), rounds=2) for one in row.phases)
    )
    train(robot, replace(config, task=task, method=row, tracking=TrackingConfig(progress="quiet")), path, ["test"])
    return path


@pytest.fixture(scope="module")
def pendulum(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `aihf`, whose networks see standardised observations."""
    return trained(tmp_path_factory.mktemp("aihf") / "run", "pendulum", "aihf", normalise_observations=True)


@pytest.fixture(scope="module")
def cloned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `bc`, which has no reward."""
    return trained(tmp_path_factory.mktemp("bc") / "run", "pendulum", "bc")


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of another world."""
    path = tmp_path_factory.mktemp("walks") / "run"
    world = ["--task.num-nodes", "6", "--task.horizon", "4", "--task.num-demonstrations", "4"]
    brief = ["--method.phases.0.rounds", "2", "--tracking.progress", "quiet", "--out", str(path)]
    with contextlib.redirect_stdout(io.StringIO()):
        cli.run(["train", "walks", "bc", *world, *brief])
    return path


def python(code: str, place: Path) -> str:
    """What a fresh process prints in a directory."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=place, capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


# export


@pytest.fixture(scope="module")
def exported(pendulum: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("exported") / "new" / "place"
    with contextlib.redirect_stdout(io.StringIO()):
        assert cli.run(["export", str(pendulum), str(place)]) == 0
    assert sorted(path.name for path in place.iterdir()) == ["README.md", "policy.zip", "reward.safetensors"]
    return place


def test_an_exported_policy_acts_alike_where_nothing_of_ours_is_installed(pendulum: Path, exported: Path) -> None:
    """Observations well beyond those of a pendulum, as numbers in a file; standardising has moved into the weights."""
    seen = 3.0 * torch.randn(100, 3, generator=torch.Generator().manual_seed(0)).numpy()
    np.save(exported.parent / "seen.npy", seen)
    code = (
        "import numpy; from stable_baselines3 import SAC\n"
        "done, _ = SAC.load('policy.zip').predict(numpy.load('../seen.npy'), deterministic=True)\n"
        "numpy.save('../done.npy', done)"
    )
    python(ELSEWHERE + code, exported)
    ours = load_robot_run(pendulum, "latest", "").policy.acting(None)(seen)
    assert np.ptp(ours) > 0.1
    np.testing.assert_allclose(np.load(exported.parent / "done.npy"), ours, rtol=0, atol=1e-5)


def test_an_exported_reward_says_what_the_run_says_and_trains_stock_sac(pendulum: Path, exported: Path) -> None:
    learnt = load_robot_run(pendulum, "latest", "").reward
    assert learnt is not None
    draw = np.random.default_rng(0)
    state, action, following = (draw.normal(size=(20, size)).astype(np.float32) for size in (3, 1, 3))
    said = reward_function(exported / "reward.safetensors")(state, action, following)
    own = learnt.for_policy()(*(torch.from_numpy(one) for one in (state, action, following)))
    np.testing.assert_array_equal(said, own.numpy())
    env = LearntReward(gymnasium.make("Pendulum-v1"), exported / "reward.safetensors")
    model = SAC("MlpPolicy", env, learning_starts=100, seed=0, policy_kwargs={"net_arch": [16]}, buffer_size=1000)
    before = [weight.clone() for weight in model.actor.parameters()]
    model.learn(200)
    assert not all(torch.equal(one, other) for one, other in zip(before, model.actor.parameters(), strict=True))
    lived = model.replay_buffer
    assert lived is not None
    seen, done, came = (part[:200, 0] for part in (lived.observations, lived.actions, lived.next_observations))
    np.testing.assert_allclose(
        lived.rewards[:200, 0],
        reward_function(exported / "reward.safetensors")(seen, model.policy.unscale_action(done), came),
        rtol=0,
        atol=1e-4,
    )


def test_an_exported_policy_goes_on_at_its_temperature(pendulum: Path, exported: Path) -> None:
    beta = load_robot_run(pendulum, "latest", "").config.method.beta
    model = SAC.load(exported / "policy.zip")
    assert model.ent_coef == pytest.approx(beta)
    assert float(model.ent_coef_tensor) == pytest.approx(beta)


def test_the_python_of_an_export_runs_as_written(exported: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (exported / "README.md").read_text(), flags=re.S)
    assert len(blocks) == 3
    assert re.fullmatch(r"-?\d+\.\d+(e-\d+)?\n", python("\n".join(blocks), exported))
    assert f"ent_coef={tuned.pace('pendulum').beta}" in (exported / "README.md").read_text()


def test_an_export_is_not_overwritten_unasked(
    pendulum: Path, cloned: Path, exported: Path, tmp_path: Path, command: Command, refused: Callable[..., str]
) -> None:
    """And where it is, no reward of another run stays beside the new policy."""
    place = Path(shutil.copytree(exported, tmp_path / "copy"))
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    said = refused("export", pendulum, place)
    assert f"{place} already holds policy.zip, reward.safetensors, README.md. Choose another" in said
    (place / "policy.zip").unlink()
    assert f"{place} already holds reward.safetensors, README.md." in refused("export", pendulum, place)
    assert command("export", pendulum, place, "--overwrite", "--which", "best").code == 0
    after = {path.name: path.read_bytes() for path in place.iterdir()}
    assert before.keys() == after.keys()
    assert "best checkpoint" in after["README.md"].decode()
    bare = command("export", cloned, place, "--overwrite")
    assert bare.code == 0
    assert "no reward.safetensors: the reward of bc is none" in bare.out
    assert sorted(path.name for path in place.iterdir()) == ["README.md", "policy.zip"]
    assert "reward" not in (place / "README.md").read_text()


def test_rewards_with_absorbing_steps_are_exported_with_their_horizon(tmp_path: Path, command: Command) -> None:
    """Inverted pendulums fall, and a thousand steps are as many as there can be. The environment of the page pays every
    step and the end just as practice did."""
    shown = random_demonstrations(tmp_path / "shown.npz", "inverted-pendulum")
    path = trained_from(shown, tmp_path / "run", "inverted-pendulum", command)
    assert command("export", path, tmp_path / "out").code == 0
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "also pays for the steps after it" in readme
    learnt = load_robot_run(path, "latest", "")
    assert learnt.reward is not None
    beta = learnt.config.method.beta
    toll = f"{random_entropy(beta, 1):.6g}"
    assert float(toll) == pytest.approx(beta * math.log(2.0), rel=1e-5)
    wrapped = 'LearntReward(gymnasium.make("InvertedPendulum-v5"), "reward.safetensors", horizon=1000, discount=0.99'
    assert f"{wrapped}, toll={toll})" in readme
    blocks = re.findall(r"```python\n(.*?)```", readme, flags=re.S)
    assert python("\n".join(blocks) + "print(env.absorbing != 0.0)", tmp_path / "out").endswith("True\n")

    env = LearntReward(
        gymnasium.make("InvertedPendulum-v5"), tmp_path / "out" / "reward.safetensors", horizon=1000, discount=0.99,
        toll=float(toll),
    )  # fmt: skip
    climbed = learnt.reward.for_policy()
    before, _ = env.reset(seed=0)
    env.action_space.seed(0)
    ended = False
    while not ended:
        action = env.action_space.sample()
        after, paid, ended, _, _ = env.step(action)
        step = [torch.from_numpy(np.float32(one))[None] for one in (before, action, after)]
        expected = float(climbed(*step)) - beta * math.log(2.0) + ended * float(climbed.absorbing()) * 99.0
        assert paid == pytest.approx(expected, abs=1e-4)
        before = after


def test_files_of_feedback_may_be_gone(tmp_path: Path, command: Command) -> None:
    shown = random_demonstrations(tmp_path / "shown.npz", "pendulum")
    path = trained_from(shown, tmp_path / "run", "pendulum", command)
    shown.unlink()
    assert command("export", path, tmp_path / "out").code == 0


# video


def test_a_film_or_a_sentence(pendulum: Path, tmp_path: Path, command: Command) -> None:
    """Pendulum is drawn with pygame, which is not among the dependencies."""
    said = command("video", pendulum, "--out", tmp_path / "film.mp4")
    assert said.code == 0
    assert "pendulum aihf, seed 0, latest: round 2" in said.out
    if all(importlib.util.find_spec(name) for name in ("pygame", "moviepy")):
        assert f"film: {tmp_path / 'film.mp4'}" in said.out
    else:
        assert "No video: " in said.out
        assert not list(tmp_path.iterdir())


def test_a_film_of_mujoco(tmp_path: Path, command: Command) -> None:
    """Two episodes of fifty steps, and the two first states; the film lands in the run directory."""
    shown = random_demonstrations(tmp_path / "shown.npz", "reacher")
    path = trained_from(shown, tmp_path / "run", "reacher", command)
    said = command("video", path, "--episodes", 2, "--which", "best")
    assert said.code == 0
    if "No video: " in said.out:
        pytest.skip(said.out.splitlines()[-1])
    assert f"film: {path / 'video-best.mp4'}" in said.out
    import imageio.v3 as iio

    assert abs(len(iio.imread(path / "video-best.mp4", plugin="FFMPEG")) - 102) <= 1


# transfer


def random_demonstrations(path: Path, robot: str, num_episodes: int = 2) -> Path:
    """Episodes of uniform actions."""
    one, draw = Simulator(robot), np.random.default_rng(0)

    def act(observations: np.ndarray) -> np.ndarray:
        return draw.uniform(one.low, one.high, (len(observations), one.action_size)).astype(np.float32)

    episodes = roll_out(act, [one], num_episodes, stream(0, "shown"))
    made = Demonstrations(
        trajectories=trajectories(episodes), maker=torch.zeros(num_episodes, dtype=torch.long),
        makers=(Provenance(maker="nobody"),),
    )  # fmt: skip
    write_demonstrations(path, made, "npz")
    return path


def trained_from(shown: Path, path: Path, robot: str, command: Command, *more: str) -> Path:
    """A tiny run of `ml-irl` on a reward of the state alone, from a file of demonstrations."""
    words = ["--task.people.demonstrations-file", shown, "--task.reward.inputs", "s", "--task.num-examined", 1,
             "--task.sac.hidden", 16, "--task.sac.learning-starts", 50, "--task.sac.batch-size", 32,
             "--method.phases.0.rounds", 2, "--method.phases.0.policy-updates", 20,
             "--method.phases.0.reward-steps", 2, "--tracking.progress", "quiet", "--out", path, *more]  # fmt: skip
    assert command("train", robot, "ml-irl", *words).code == 0
    return path


def results(place: Path) -> dict[str, tuple[int, float]]:
    """When each lesson's result was written, and the return in it."""
    return {
        path.parent.name: (path.stat().st_mtime_ns, json.loads(path.read_text())["return"])
        for path in place.glob("*/result.json")
    }


def test_a_transfer_goes_on_with_what_is_missing_and_pairs_its_seeds(
    pendulum: Path, tmp_path: Path, command: Command
) -> None:
    """Three seeds after one: the first is not computed again; a lesson that was lost comes out as before."""
    path = Path(shutil.copytree(pendulum, tmp_path / "run"))
    words = ("transfer", path, "--updates", 30, "--workers", 1)
    first = command(*words, "--seeds", 1)
    assert first.code == 0
    assert "95 %" not in first.out
    begun = results(path / "transfer-pendulum")
    assert sorted(name[:-13] for name in begun) == ["learnt-0", "true-0"]
    lost = next(name for name in begun if name.startswith("learnt"))
    shutil.rmtree(path / "transfer-pendulum" / lost)
    said = command(*words, "--seeds", 3)
    assert said.code == 0
    assert len(re.findall(r"^cell \d/6  (learnt|true)-\d  return -", said.err, re.MULTILINE)) == 5
    ended = results(path / "transfer-pendulum")
    assert len(ended) == 6
    kept = next(name for name in begun if name.startswith("true"))
    assert ended[kept] == begun[kept]
    assert ended[lost][1] == begun[lost][1]
    assert ended[lost][0] != begun[lost][0]

    record = json.loads((path / "transfer-pendulum.json").read_text())
    returns = {
        policy: [row["return"] for row in record["rows"] if row["policy"] == policy]
        for policy in ("learnt", "true", "moved")
    }
    assert all(len(set(column)) == 3 for column in returns.values())
    assert record["intervals"]["return"]["learnt"]["low"] == mean_interval(returns["learnt"]).low
    pair = paired_difference(returns["learnt"], returns["true"])
    found = record["intervals"]["return"]["learnt - true"]
    assert (found["low"], found["high"], found["p_value"]) == (pair.interval.low, pair.interval.high, pair.p_value)
    shown = f"{pair.interval.estimate:.1f} [{pair.interval.low:.1f}, {pair.interval.high:.1f}]"
    assert shown in said.out
    beta = tuned.pace("pendulum").beta
    assert f"temperature: fixed at {beta} under the learnt reward, automatic under the true one" in said.out
    scores = [row["score"] for row in record["rows"]]
    domain = ControlDomain(small("pendulum"), 0)
    assert scores == pytest.approx([domain.score(row["return"]) for row in record["rows"]])
    assert (record["task"], record["updates"], record["run"]["method"]) == ("pendulum", 30, "aihf")


def test_another_checkpoint_is_another_lesson_but_for_the_true_reward(pendulum: Path, tmp_path: Path) -> None:
    """The true reward is the same whatever the run had learnt by when, and the same reward is the same file."""
    path = Path(shutil.copytree(pendulum, tmp_path / "run"))
    newest = checkpoint.latest(path / "checkpoints")
    assert newest is not None

    def places() -> dict[tuple[str, int], Path]:
        cells = cells_of(load_robot_run(path, "latest", ""), ControlDomain(small("pendulum"), 0), flags, tmp_path)
        return {key: cell.directory(tmp_path) for key, cell in cells.items()}

    flags = Flags(seeds=1, updates=10)
    before, again = places(), places()
    assert before == again
    assert len(list(tmp_path.glob("reward-*.safetensors"))) == 1
    saved = checkpoint.load(newest)
    saved["learner"]["reward"]["model"]["perceptrons.biases.0"] += 1.0
    checkpoint.save(path / "checkpoints", saved, 3)
    after = places()
    assert after["true", 0] == before["true", 0]
    assert after["learnt", 0] != before["learnt", 0]


def test_lessons_differ_in_reward_and_temperature_alone(pendulum: Path, tmp_path: Path) -> None:
    """The same first networks; β stays where it was under the learnt reward, and the other temperature moves."""
    learnt = load_robot_run(pendulum, "latest", "")
    assert learnt.reward is not None
    save_reward(tmp_path / "reward", learnt.reward)
    usual = replace(small("pendulum"), sac=replace(small("pendulum").sac, demonstrated_share=0.5))
    trainers, alphas = [], []
    for name in ("reward", ""):
        given = lesson(usual, reward=name, beta=0.07, gamma=1.0, updates=20, seed=4, threads=1)
        assert given.discount == 0.99
        trainer, reward = transfer.begin(given, ControlDomain(given.task, 4), tmp_path)
        trainers.append({name: value.clone() for name, value in trainer.sac.policy.state_dict().items()})
        step = torch.ones(5, 3), torch.ones(5, 1), torch.zeros(5, 3), torch.full((5,), 9.0)
        expected = load_reward(tmp_path / "reward").for_policy()(*step) if name else step[-1]
        assert torch.equal(reward(*step), expected)
        assert given.pays_toll == bool(name)
        trainer.train(reward, given.beta, given.discount, 20, stream(4, "here"))
        assert trainer.shown is None
        alphas.append(float(trainer.networks.log_alpha.detach().exp()))
    assert trainers[0].keys() == trainers[1].keys()
    assert all(torch.equal(trainers[0][name], trainers[1][name]) for name in trainers[0])
    assert alphas[0] == pytest.approx(0.07)
    assert 0.5 < alphas[1] < 1.0


def test_lessons_are_examined_in_the_task_as_it_is(tmp_path: Path) -> None:
    """A run whose practice never ends early is no reason to let its pupil lie on the ground for a thousand steps."""
    task = replace(small("hopper"), ends="fixed horizon")
    given = lesson(task, reward="", beta=0.1, gamma=1.0, updates=5, seed=0, threads=1)
    assert transfer.learn(given, tmp_path, lambda *_: None)["length"] < 500


def test_what_the_seed_decides_is_where_episodes_start(pendulum: Path) -> None:
    domain, policy = ControlDomain(small("pendulum"), 0), load_robot_run(pendulum, "latest", "").policy
    first, again, other = (transfer.examined(policy, domain, seed)["return"] for seed in (0, 0, 1))
    assert first == again != other


def test_a_lesson_without_a_number_is_a_failure_and_no_average(
    pendulum: Path, tmp_path: Path, command: Command
) -> None:
    """A learning rate of 10³⁰ breaks every lesson; the moved policy still has its returns, and a mean of its own."""
    path = Path(shutil.copytree(pendulum, tmp_path / "run"))
    config = json.loads((path / "config.json").read_text())
    config["task"]["sac"]["learning_rate"] = 1e30
    (path / "config.json").write_text(json.dumps(config))
    said = command("transfer", path, "--updates", 20, "--seeds", 1, "--workers", 1)
    assert said.code == 1
    assert re.search(r"^failed: learnt seed 0: .*(Lower sac.learning_rate|not finite)", said.out, re.MULTILINE)
    assert re.search(r"│ 0 +│ +failed │ +failed │ +-\d+", said.out)
    record = json.loads((path / "transfer-pendulum.json").read_text())
    assert list(record["intervals"]["return"]) == ["moved"]
    given = Lesson(task=small("pendulum"), beta=0.1, pays_toll=False, discount=0.9, updates=5, seed=0)
    steep = replace(given.task.sac, learning_rate=1e30, updates_per_step=5.0)
    broken = replace(given, task=replace(given.task, sac=steep))
    with pytest.raises(Diverged, match=r"After 5 updates \w+ is (nan|-?inf)"):
        transfer.learn(broken, tmp_path, lambda done, mean: None)


@pytest.mark.slow
def test_a_reward_of_states_moves_from_ant_to_crippled_ant(tmp_path: Path, command: Command) -> None:
    shown = random_demonstrations(tmp_path / "shown.npz", "transfer-ant", 1)
    path = trained_from(shown, tmp_path / "run", "transfer-ant", command)
    said = command("transfer", path, "--task", "crippled-ant", "--updates", 20, "--seeds", 1, "--workers", 1)
    assert said.code == 0
    assert "crippled-ant: 20 updates under the reward of transfer-ant ml-irl" in said.out
    assert "it sees s)" in said.out
    record = json.loads((path / "transfer-crippled-ant.json").read_text())
    assert {row["policy"] for row in record["rows"]} == {"learnt", "true", "moved"}
    assert all(np.isfinite(row["return"]) for row in record["rows"])
    assert command("export", path, tmp_path / "out").code == 0
    readme = (tmp_path / "out" / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", readme, flags=re.S)
    assert 'make("envs.robots.ants:unified-irl/TransferAnt-v0")' in blocks[0]
    python("\n".join(blocks), tmp_path / "out")


# What cannot be meant.


def test_what_cannot_be_moved(
    pendulum: Path, cloned: Path, walked: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    there = refused("transfer", pendulum, "--task", "reacher")
    assert "The reward was learnt in pendulum, on observations of 3 and actions of 1 numbers; reacher has" in there
    assert there.endswith("Choose a task of the same shapes.")
    none = refused("transfer", cloned)
    able = ", ".join(name for name, row in METHODS.items() if row.reward == "explicit")
    assert (
        f"{cloned} has no learnt reward that could be moved: the reward of bc is none. Train with one of {able}."
        in none
    )
    assert "There is no robot called 'reachr'. Did you mean reacher" in refused(
        "transfer", pendulum, "--task", "reachr"
    )
    assert "Rewards are moved between robot tasks only" in refused("transfer", walked)
    assert "seeds is 0, workers 2, updates 0; expected 1, 1 and 0 or more." in refused(
        "transfer", pendulum, "--seeds", 0
    )


def test_actions_of_another_range_are_another_task(pendulum: Path) -> None:
    features = load_robot_run(pendulum, "latest", "").reward.model.features  # type: ignore[union-attr]
    domain = ControlDomain(small("pendulum"), 0)
    transfer.refuse_other_shapes(features, domain, "pendulum")
    features.action_high += 1.0
    with pytest.raises(ValueError, match=r"actions from \[-2.0\] to \[3.0\]; those of pendulum lie from \[-2.0\] to"):
        transfer.refuse_other_shapes(features, domain, "pendulum")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("export WALKS out", "is a run of walks, which has no form that other libraries know. What can be exported"),
        ("export EMPTY out", "holds no run (no config.json in it); give the directory that `train` wrote."),
        ("export BEGUN out", "holds no latest checkpoint yet; `resume"),
        ("export BEGUN out --which best", "holds no best checkpoint yet; `resume"),
        ("export ALTERED out", "is of another task or method than the run's config.json says: "),
        ("export PENDULUM", "'export' needs DIRECTORY: unified-irl export RUN DIRECTORY [flags]."),
        ("video WALKS", "is a run of walks, which is no robot task. Nothing moves there that could be filmed"),
        ("video PENDULUM --episodes 0", "episodes is 0 and seed 0; expected 1 and 0 or more."),
        ("video PENDULUM --out film.gif", "out is film.gif; films are mp4 files: expected a name that ends in .mp4."),
        ("video EMPTY", "holds no run"),
        ("transfer EMPTY", "holds no run"),
    ],
)
def test_words_that_are_not_understood(
    words: str, sentence: str, pendulum: Path, walked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    refused: Callable[..., str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    begun = Path(shutil.copytree(pendulum, "begun"))
    shutil.rmtree(begun / "checkpoints")
    altered = Path(shutil.copytree(pendulum, "altered"))
    config = json.loads((altered / "config.json").read_text())
    config["task"]["sac"]["hidden"] = [7]
    (altered / "config.json").write_text(json.dumps(config))
    places = {"WALKS": walked, "EMPTY": "nothing", "BEGUN": begun, "ALTERED": altered, "PENDULUM": pendulum}
    assert sentence in refused(*(places.get(word, word) for word in words.split()))
    assert not Path("out").exists()


def test_help_without_any_tensor() -> None:
    for verb, words in (("export", "RUN DIRECTORY"), ("video", "RUN"), ("transfer", "RUN")):
        code = f"import sys; from experiments.cli import run\ntry: run({[verb, *words.split(), '--help']})\n"
        heavy = "except SystemExit: print([name for name in ('torch', 'mujoco', 'gymnasium') if name in sys.modules])"
        said = python(code + heavy, Path())
        assert said.endswith("[]\n")
        assert verb != "transfer" or "ML-IRL's transfer experiment" in re.sub(r"\s+", " ", said)


# experts


def test_experts_come_of_a_run_that_goes_on(
    command: Command, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three policies in order, as good as the file says; the same to the last bit after the run was cut off."""
    monkeypatch.setattr(experts, "NUM_MEASURED", 10)
    settings = tuned.expert_settings("pendulum")
    tiny = replace(settings, sac=replace(settings.sac, **NETWORKS), num_examined=2)
    monkeypatch.setattr(tuned, "expert_settings", lambda name: tiny)
    usual = ["experts", "pendulum", "--rounds", "3", "--episodes", "2"]
    said = command(*usual, "--out", "whole", "--into", "whole.safetensors")
    assert said.code == 0, said.err

    examined = ExpertDomain.evaluate

    def cut_off(self: ExpertDomain, *about: Any) -> Any:
        if self.folder.is_dir() and len(list(self.folder.glob("*.json"))) == 1:
            raise KeyboardInterrupt
        return examined(self, *about)

    with monkeypatch.context() as power:
        power.setattr(ExpertDomain, "evaluate", cut_off)
        assert command(*usual, "--out", "cut", "--into", "cut.safetensors").code != 0
    assert not Path("cut.safetensors").exists()
    assert "go on with `experts pendulum --out cut`" in refused("resume", "cut")
    for flag, value, asked in (("--seed", 1, "seed 1, 3 rounds"), ("--rounds", 5, "seed 0, 5 rounds")):
        sentence = refused(*usual, flag, value, "--out", "cut", "--into", "cut.safetensors")
        assert f"begun for pendulum, seed 0, 3 rounds, but pendulum, {asked} were asked for" in sentence
    assert command("experts", "pendulum", "--episodes", "2", "--out", "cut", "--into", "cut.safetensors").code == 0

    whole, cut = load_file("whole.safetensors"), load_file("cut.safetensors")
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)

    found = snapshots.load(Path("whole.safetensors"), "pendulum")
    simulators = ControlDomain(ControlConfig(robot="pendulum"), 0).simulators(10)
    for tier, told in found.facts["tiers"].items():
        again = roll_out(found.tiers[tier].act(None), simulators, 10, stream(0, f"pendulum {tier}", "measured"))
        assert np.mean([one.rewards.sum() for one in again]) == pytest.approx(told["return"], abs=1e-3)
    assert len({told["updates"] for told in found.facts["tiers"].values()}) == 3
    shown = [float(one.rewards.sum()) for one in found.episodes]
    assert np.mean(shown) == pytest.approx(found.facts["demonstrations"]["return"], abs=1e-2)


def test_lower_tiers_lie_above_what_a_run_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An untaught arm keeps still, which is worth far more than random motion: a tier taken a quarter of the way from
    random motion would be the untaught arm itself."""
    sizes = {"latent_pi.0": (8, 10), "mu": (2, 8), "log_std": (2, 8)}
    weights = {f"{name}.weight": torch.zeros(size) for name, size in sizes.items()}
    biases = {f"{name}.bias": torch.zeros(size[0]) for name, size in sizes.items()}
    for updates in range(21):
        save_file(weights | biases, tmp_path / f"{updates:09d}.safetensors")
        seen = {"updates": updates, "return": -9.0 + 0.25 * updates}
        (tmp_path / f"{updates:09d}.json").write_text(json.dumps(seen))
    monkeypatch.setattr(experts, "NUM_MEASURED", 1)
    told = experts.harvest("reacher", tmp_path, tmp_path / "reacher.safetensors", {}, num_episodes=1)
    assert {tier: one["updates"] for tier, one in told["tiers"].items()} == {"simple": 5, "medium": 12, "expert": 20}
