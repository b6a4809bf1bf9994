"""The model inside Stable-Baselines3: files both ways, callbacks, the settings of its zoo, and its own update where
the stacked one cannot express what is asked for."""

from __future__ import annotations

import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from robots import Paid, seeded, trainer
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn
from torch.optim import Adam

from control.acting import actions_of
from control.sac import FastSAC

torch.set_num_threads(1)
SMALL: dict[str, Any] = {
    "learning_starts": 40, "batch_size": 16, "buffer_size": 500, "seed": 0, "device": "cpu",
    "policy_kwargs": {"net_arch": [16, 16]},
}  # fmt: skip


def learnt(kind: type[SAC], steps: int = 80, env: Any = "Pendulum-v1", **changes: Any) -> SAC:
    return kind("MlpPolicy", env, **{**SMALL, **changes}).learn(steps)


def watched(model: SAC, count: int = 100) -> np.ndarray:
    """What it does in its mean on states that it may see."""
    size = model.observation_space.shape
    assert size is not None
    seen = np.random.default_rng(5).normal(size=(count, *size)).astype(np.float32)
    return model.predict(seen, deterministic=True)[0]


def moments(model: SAC) -> dict[str, Any]:
    """The state of its optimisers, as files hold it."""
    given = model.get_parameters()
    return {name: given[name]["state"] for name in ("actor.optimizer", "critic.optimizer")}


def must_agree(one: Any, other: Any) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        if isinstance(value, dict):
            must_agree(value, other[key])
        else:
            assert torch.equal(value, other[key]), key


KINDS = [(FastSAC, SAC), (SAC, FastSAC), (FastSAC, FastSAC)]


@pytest.mark.parametrize(("writes", "reads"), KINDS)
@pytest.mark.parametrize("ent_coef", ["auto", 0.2])
def test_files_load_in_either_class(writes: type[SAC], reads: type[SAC], ent_coef: Any, tmp_path: Path) -> None:
    """The same actions, the same moments of every parameter, the same temperature; and learning goes on from there."""
    model = learnt(writes, ent_coef=ent_coef)
    model.save(tmp_path / "model")
    again = reads.load(tmp_path / "model.zip", env=gym.make("Pendulum-v1"), device="cpu")
    assert np.array_equal(watched(again), watched(model))
    must_agree(moments(again), moments(model))
    assert len(moments(again)["actor.optimizer"]) == 8
    assert float(moments(again)["actor.optimizer"][0]["step"]) == 40.0
    if ent_coef == "auto":
        assert torch.equal(again.log_ent_coef, model.log_ent_coef)
        assert again.ent_coef_optimizer.state_dict()["state"][0]["step"] == 40
        assert float(again.log_ent_coef.detach()) != 0.0
    else:
        assert float(again.ent_coef_tensor) == pytest.approx(0.2)

    before = watched(again)
    again.learn(60, reset_num_timesteps=False)
    assert again.num_timesteps == 140
    assert again._n_updates == 100
    assert float(moments(again)["critic.optimizer"][0]["step"]) == 100.0
    assert not np.array_equal(watched(again), before)
    assert np.isfinite(watched(again)).all()


def test_files_name_nothing_of_this_package(tmp_path: Path) -> None:
    """Whoever loads one needs Stable-Baselines3 alone."""
    learnt(FastSAC).save(tmp_path / "model")
    with zipfile.ZipFile(tmp_path / "model.zip") as file:
        told = file.read("data").decode()
    for word in ("control.", "Networks", "Stack"):
        assert word not in told


def test_a_loaded_model_learns_like_the_one_that_was_saved(tmp_path: Path) -> None:
    """With the same replay and the same noise, an update of either moves every weight alike: no moment was lost."""
    model = learnt(FastSAC)
    model.save(tmp_path / "model")
    again = FastSAC.load(tmp_path / "model", device="cpu")
    again.replay_buffer, again._logger = model.replay_buffer, model.logger
    for one in (model, again):
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002 - where Stable-Baselines3 draws from
        torch.manual_seed(0)
        one.train(5, 16)
    for name, value in model.policy.state_dict().items():
        torch.testing.assert_close(again.policy.state_dict()[name], value, rtol=0.0, atol=0.0, msg=name)


def test_parameters_given_in_part_leave_the_rest(tmp_path: Path) -> None:
    """A new policy keeps the moments as they are now, not as they were when somebody last asked; no state empties."""
    model = learnt(FastSAC)
    model.get_parameters()
    model.learn(20, reset_num_timesteps=False)
    before = {name: {k: dict(one) for k, one in state.items()} for name, state in moments(model).items()}
    model.set_parameters({"policy": learnt(SAC, 0).get_parameters()["policy"]}, exact_match=False)
    assert np.array_equal(watched(model), watched(learnt(SAC, 0)))
    must_agree(moments(model), before)
    model.set_parameters(learnt(SAC, 0).get_parameters())
    assert moments(model) == {"actor.optimizer": {}, "critic.optimizer": {}}
    model.learn(20, reset_num_timesteps=False)
    assert float(moments(model)["actor.optimizer"][0]["step"]) == 20.0


def test_callbacks_work(tmp_path: Path) -> None:
    """Examinations and checkpoints on the way; the best model and every checkpoint load as plain SAC."""
    examine = EvalCallback(
        Monitor(gym.make("Pendulum-v1")), n_eval_episodes=1, eval_freq=50, best_model_save_path=str(tmp_path),
        log_path=str(tmp_path), verbose=0,
    )  # fmt: skip
    keep = CheckpointCallback(save_freq=50, save_path=str(tmp_path), name_prefix="kept", save_replay_buffer=True)
    model = FastSAC("MlpPolicy", "Pendulum-v1", **SMALL)
    model.learn(100, callback=[examine, keep])
    assert len(np.load(tmp_path / "evaluations.npz")["results"]) == 2
    for name in ("best_model", "kept_50_steps", "kept_100_steps"):
        SAC.load(tmp_path / name, device="cpu")
    # Stable-Baselines3 calls back between a step and the updates that follow it.
    kept = SAC.load(tmp_path / "kept_100_steps", device="cpu")
    assert (kept.num_timesteps, kept._n_updates, model._n_updates) == (100, 59, 60)
    assert float(moments(kept)["critic.optimizer"][0]["step"]) == 59.0
    again = FastSAC.load(tmp_path / "kept_100_steps", device="cpu")
    again.load_replay_buffer(tmp_path / "kept_replay_buffer_100_steps.pkl")
    assert again.replay_buffer.size() == 99


def linear(start: float) -> Callable[[float], float]:
    """The zoo's schedule of the same name."""
    return lambda remaining: remaining * start


ZOO: dict[str, dict[str, Any]] = {
    "mujoco": {"learning_starts": 60},
    "pendulum": {"learning_rate": 1e-3},
    "swimmer": {"gamma": 0.9999},
    "lr_schedule": {"learning_rate": linear(7.3e-4)},
    "train_freq": {"train_freq": 8, "gradient_steps": 8},
    "per_episode": {"train_freq": (1, "episode"), "gradient_steps": 4},
    "as_many": {"train_freq": 8, "gradient_steps": -1},
    "temperature": {"ent_coef": "auto_0.1", "target_entropy": -2.0},
    "n_steps": {"n_steps": 3},
    "three_critics": {"policy_kwargs": {"net_arch": {"pi": [16], "qf": [24, 16]}, "n_critics": 3}},
    "no_hidden_layer": {"policy_kwargs": {"net_arch": []}},
    "adam": {"policy_kwargs": {"net_arch": [16], "optimizer_kwargs": {"betas": (0.5, 0.99), "eps": 1e-5}}},
    "log_std_init": {"policy_kwargs": {"log_std_init": -3, "net_arch": [16, 16]}},
}


@pytest.mark.parametrize("name", ZOO)
def test_settings_of_the_zoo_work(name: str, tmp_path: Path) -> None:
    steps = 220 if name == "per_episode" else 100
    model = learnt(FastSAC, steps, **ZOO[name])
    assert isinstance(model, FastSAC)
    assert model.networks is not None, "the stacked update ought to express this"
    # Of 100 steps (two whole episodes of 200 per episode), those after the first 40 (60).
    expected = {"mujoco": 40, "per_episode": 8, "as_many": 64, "train_freq": 64}.get(name, 60)
    assert model._n_updates == expected
    assert np.isfinite(watched(model)).all()
    model.save(tmp_path / "model")
    assert np.array_equal(watched(SAC.load(tmp_path / "model", device="cpu")), watched(model))
    if name == "lr_schedule":
        model._current_progress_remaining = 0.25
        model.train(1, 16)
        networks = model.networks
        for optimiser in (networks.actor_optimiser, networks.critic_optimiser, networks.alpha_optimiser):
            assert optimiser is not None
            assert optimiser.param_groups[0]["lr"] == pytest.approx(7.3e-4 / 4)
    if name == "adam":
        assert model.networks.critic_optimiser.param_groups[0]["betas"] == (0.5, 0.99)


class ThirdActivation(nn.Tanh):
    """Anything but ReLU."""


OWN_UPDATE: dict[str, dict[str, Any]] = {
    "sde": {"use_sde": True},
    "sde_zoo": {"use_sde": True, "policy_kwargs": {"log_std_init": -3, "net_arch": [16, 16]}, "sde_sample_freq": 4},
    "activation": {"policy_kwargs": {"activation_fn": ThirdActivation, "net_arch": [16]}},
    "optimizer": {"policy_kwargs": {"optimizer_class": torch.optim.SGD, "net_arch": [16]}},
    "amsgrad": {"policy_kwargs": {"optimizer_kwargs": {"amsgrad": True}, "net_arch": [16]}},
    "rare_targets": {"target_update_interval": 5, "gradient_steps": 2},
}


@pytest.mark.parametrize("name", OWN_UPDATE)
def test_what_the_stacked_update_cannot_express_is_left_to_stable_baselines3(name: str, tmp_path: Path) -> None:
    """`networks` is None then, and model and file are those that SAC itself would have made."""
    ours, theirs = (learnt(kind, 80, **OWN_UPDATE[name]) for kind in (FastSAC, SAC))
    assert isinstance(ours, FastSAC)
    assert ours.networks is None
    assert np.array_equal(watched(ours), watched(theirs))
    must_agree(moments(ours), moments(theirs))
    ours.save(tmp_path / "model")
    for kind in (SAC, FastSAC):
        again = kind.load(tmp_path / "model", env=gym.make("Pendulum-v1"), device="cpu")
        assert np.array_equal(watched(again), watched(theirs))
        again.learn(30, reset_num_timesteps=False)


class Square(gym.ObservationWrapper):
    """Pendulum, its three observations in a square of numbers."""

    def __init__(self) -> None:
        super().__init__(gym.make("Pendulum-v1"))
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (2, 2), np.float32)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return np.resize(observation, (2, 2)).astype(np.float32)


class Room(gym.Env):
    """Three rooms by number."""

    observation_space = gym.spaces.Discrete(3)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        return 0, {}

    def step(self, action: np.ndarray) -> tuple[int, float, bool, bool, dict[str, Any]]:
        return int(self.np_random.integers(3)), float(action[0]), False, False, {}


@pytest.mark.parametrize("kind", [Square, Room])
def test_observations_that_are_no_vectors_are_left_to_it_too(kind: type[gym.Env]) -> None:
    model = learnt(FastSAC, env=kind())
    assert isinstance(model, FastSAC)
    assert model.networks is None
    assert model._n_updates == 40


def test_several_environments_and_normalised_ones(tmp_path: Path) -> None:
    """Two lanes, observations and rewards standardised on the way: batches are drawn standardised."""
    env = VecNormalize(make_vec_env("Pendulum-v1", n_envs=2, seed=0))
    model = learnt(FastSAC, 100, env=env, gradient_steps=2)
    assert isinstance(model, FastSAC)
    assert model.networks is not None
    assert model._n_updates == 60
    env.save(str(tmp_path / "env.pkl"))
    model.save(tmp_path / "model")
    fresh = VecNormalize.load(str(tmp_path / "env.pkl"), DummyVecEnv([lambda: gym.make("Pendulum-v1")] * 2))
    assert SAC.load(tmp_path / "model", env=fresh, device="cpu").learn(20).num_timesteps == 20


def test_batches_come_standardised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, observations of the pendulum's speed are up to 8 and rewards down to −16."""
    model = learnt(FastSAC, 200, env=VecNormalize(make_vec_env("Pendulum-v1", n_envs=1, seed=0)), learning_starts=200)
    seen = []
    monkeypatch.setattr("control.sac.update", lambda networks, batch, noise: seen.append(batch) or {})
    model.train(20, 16)
    speed, reward = (torch.cat(parts) for parts in ([one.observation[:, 2] for one in seen], [o.reward for o in seen]))
    assert float(speed.std()) == pytest.approx(1.0, abs=0.3)
    assert float(reward.abs().max()) < 3.0


def test_numbers_are_logged_as_by_stable_baselines3() -> None:
    model = learnt(FastSAC, 100)
    model.dump_logs()
    named = {name for name in learnt(SAC, 100).logger.name_to_value if name.startswith("train/")}
    model.train(1, 16)
    assert model.logger.name_to_value["train/n_updates"] == model._n_updates
    assert {"train/actor_loss", "train/critic_loss", "train/ent_coef"} <= named


# Exports of the trainer


@pytest.mark.parametrize(
    "sac", [{}, {"normalise_observations": True}, {"precision": "bfloat16", "hidden": (16, 16, 16)}]
)
def test_an_exported_policy_acts_and_earns_alike_in_stable_baselines3(sac: dict[str, Any], tmp_path: Path) -> None:
    """`evaluate_policy` of a file loaded by plain SAC: the returns of the policy here, acting by its mean."""
    one = trainer("pendulum", **sac)
    one.train(Paid(), 0.1, 0.99, 60, seeded(1))
    one.export().save(tmp_path / "policy")
    plain = SAC.load(tmp_path / "policy", device="cpu")
    assert type(plain) is SAC

    seen = np.random.default_rng(2).normal(size=(100, 3)).astype(np.float32)
    ours, theirs = actions_of(one.sac.actor, one.scales, None)(seen), plain.predict(seen, deterministic=True)[0]
    if sac.get("normalise_observations"):
        assert not torch.equal(one.scales.observation_mean, torch.zeros(3))
        np.testing.assert_allclose(ours, theirs, rtol=0.0, atol=2e-5)
    else:
        np.testing.assert_allclose(ours, theirs, rtol=0.0, atol=5e-7)

    returns, _ = evaluate_policy(plain, seeded_pendulum(), n_eval_episodes=2, return_episode_rewards=True)
    env, mine = seeded_pendulum(), []
    for _ in range(2):
        seen, total, over = env.reset()[0], 0.0, False
        while not over:
            seen, reward, _, over, _ = env.step(actions_of(one.sac.actor, one.scales, None)(seen[None])[0])
            total += float(reward)
        mine.append(total)
    np.testing.assert_allclose(returns, mine, rtol=1e-3)


def seeded_pendulum() -> gym.Env:
    """Its first episodes are always the same."""
    env = Monitor(gym.make("Pendulum-v1"))
    env.reset(seed=11)
    return env


def test_an_exported_model_carries_the_temperature_that_was_fixed(tmp_path: Path) -> None:
    one = trainer("pendulum")
    one.train(Paid(), 0.07, 0.99, 5, seeded(1))
    one.export().save(tmp_path / "model")
    assert float(SAC.load(tmp_path / "model", device="cpu").ent_coef_tensor) == pytest.approx(0.07)


def test_building_training_and_exporting_draw_from_no_global_generator() -> None:
    """Nor do they depend on one."""

    def states() -> list[Any]:
        return [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]  # noqa: NPY002

    said = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        before = states()
        one = trainer("pendulum", normalise_observations=True, reset_critics_above=1e-6)
        one.train(Paid(), 0.1, 0.99, 10, seeded(1))
        one.train(Paid(factor=3.0), 0.1, 0.99, 10, seeded(2))
        said.append(watched(one.export()))
        assert states() == before
    assert np.array_equal(*said)


def test_an_optimiser_of_the_users_own_still_sees_the_modules() -> None:
    """Gradients by autograd through the policy's modules reach the tensors that the stacked update moves."""
    model = FastSAC("MlpPolicy", "Pendulum-v1", **SMALL)
    assert model.networks is not None
    before = model.networks.actor.flat.clone()
    optimiser = Adam(model.actor.parameters(), lr=0.01)
    model.actor(torch.ones(4, 3), deterministic=True).sum().backward()
    optimiser.step()
    assert not torch.equal(before, model.networks.actor.flat)


# Learning


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_pendulum_is_solved(precision: str) -> None:
    """In 6,000 steps under the true reward, as the zoo's learning rate does it: a mean return above −200."""
    one = trainer("pendulum", hidden=(256, 256), batch_size=256, learning_rate=1e-3, temperature="auto",
                  learning_starts=500, buffer_size=10_000, precision=precision)  # fmt: skip
    one.train(Paid(), 0.1, 0.99, 5_500, seeded(1))
    assert one.practice.num_steps == 6_000
    returns, _ = evaluate_policy(one.export(), seeded_pendulum(), n_eval_episodes=20)
    assert returns > -200.0
