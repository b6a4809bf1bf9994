"""Rewards of the control world: what they say, how they learn, and the files they travel in."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor

from control.export_reward import LearntReward, load_reward, reward_function, save_reward
from control.reward import MLPReward
from control.reward_config import RewardConfig
from envs.robots.episodes import Episode, trajectories, with_absorbing
from unified_irl.batch import Batch, Normaliser
from unified_irl.conformance_bench import reloaded, same
from unified_irl.contracts import LossFunction
from unified_irl.descent_config import DescentConfig
from unified_irl.errors import UserError
from unified_irl.feedback import Preferences, Provenance
from unified_irl.joint import joint_loss
from unified_irl.methods import METHODS
from unified_irl.rows import Phase
from unified_irl.trajectories import Trajectories

GENTLE = DescentConfig(optimiser="sgd", learning_rate=0.01)
SMALL: dict[str, Any] = {"hidden": (8, 8), "penalty_points": 32}


def learner(
    config: RewardConfig,
    descent: DescentConfig = GENTLE,
    sizes: tuple[int, int] = (3, 2),
    seed: int = 0,
    bound: float = 1.0,
) -> MLPReward:
    low, high = [-bound] * sizes[1], [bound] * sizes[1]
    return MLPReward(*sizes, low, high, config, descent, Generator().manual_seed(seed))


def walks(lengths: list[int], sizes: tuple[int, int] = (3, 2), seed: int = 0, shift: float = 0.0) -> Trajectories:
    """Episodes of noise, the first of which the world ended."""
    draw = np.random.default_rng(seed)
    return trajectories(
        [
            Episode(
                observations=draw.normal(shift, 1.0, (length + 1, sizes[0])),
                actions=draw.uniform(-1.0, 1.0, (length, sizes[1])),
                rewards=np.zeros(length),
                terminated=number == 0,
                truncated=number > 0,
            )
            for number, length in enumerate(lengths)
        ]
    )


def compared(seed: int = 5, count: int = 4) -> Preferences:
    """Comparisons of equally long segments, the first of which is better where its observations sum to more."""
    first, second = (walks([6] * count, seed=seed + side) for side in (0, 1))
    total = [one.data["observation"].sum((1, 2)) for one in (first, second)]
    zeros = torch.zeros(count)
    return Preferences(
        first=first,
        second=second,
        label=(total[0] > total[1]).float(),
        margin=zeros,
        maker=zeros.long(),
        makers=(Provenance(maker="sum"),),
        level="segment",
    )


def batch() -> Batch:
    """Five demonstrations, as many own episodes, fewer comparisons; with absorbing columns."""
    shown = with_absorbing(walks([4, 7, 5, 7, 2], shift=1.0), 7)
    return Batch(demonstrations=shown, own=with_absorbing(walks([3, 7, 7, 7, 6], seed=1), 7), preferences=compared())


def loss_of(reward: MLPReward) -> LossFunction:
    """Linear term plus Bradley-Terry."""
    phase = Phase(name="joint", demonstration="linear", preference="bradley-terry")
    method = replace(METHODS["aihf"], gamma=0.99, beta=1.0)
    return joint_loss(method, phase, log_prob=reward, demonstration_reward=reward, preference_reward=reward)


def descend(reward: MLPReward, times: int = 1) -> dict[str, Tensor]:
    for _ in range(times):
        metrics = reward.descend(loss_of(reward), batch(), batch().normaliser())
    return metrics


def set_linear(reward: MLPReward, *slope: float, bias: float = 0.0) -> None:
    with torch.no_grad():
        for member in range(reward.config.num_members):
            reward.model.perceptrons.weights[0][member, :, 0] = torch.tensor(slope)
            reward.model.perceptrons.biases[0][member] = bias


def nothing(piece: Batch, scale: Normaliser) -> tuple[Tensor, dict[str, Tensor]]:
    return torch.zeros(()), {}


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ({"inputs": "a"}, 'inputs is "a"'),
        ({"activation": "gelu"}, 'activation is "gelu"'),
        ({"bounding": "hard"}, 'bounding is "hard"'),
        ({"hidden": (64, 0)}, r"hidden is \[64, 0\]"),
        ({"bound": 0.0}, "bound is 0.0"),
        ({"bound": math.inf}, "bound is inf"),
        ({"input_std_floor": 0.0}, "input_std_floor is 0.0"),
        ({"gradient_penalty": -1.0}, "gradient_penalty is -1.0"),
        ({"penalty_target": math.nan}, "penalty_target is nan"),
        ({"num_members": 0}, "num_members is 0"),
        ({"penalty_points": 0}, "penalty_points is 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(setting: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        RewardConfig(**setting)


def test_the_penalty_of_a_linear_reward() -> None:
    """r = 3 s₁ + 4 s₂ has slope 5 everywhere: 10 (5 − 1)² = 160. Its gradient by the weights is
    20 (5 − 1) (0.6, 0.8) = (48, 64), so a step of 0.01 arrives at (2.52, 3.36). Below a slope of 1 there is none."""
    reward = learner(RewardConfig(inputs="s", hidden=(), num_members=2, normalise_inputs=False), sizes=(2, 1))
    set_linear(reward, 3.0, 4.0)
    given = Batch(demonstrations=walks([3, 5], (2, 1)), own=walks([4], (2, 1), seed=1))
    for does in (reward.measure, reward.descend):
        metrics = does(nothing, given, given.normaliser())
        torch.testing.assert_close(metrics["gradient_penalty"], torch.tensor(160.0))
        torch.testing.assert_close(metrics["reward_gradient_norm"], torch.tensor(5.0))
        assert metrics["loss"] == 0.0
    expected = torch.tensor([2.52, 3.36]).expand(2, 2)
    torch.testing.assert_close(reward.model.perceptrons.weights[0].detach().squeeze(2), expected)
    set_linear(reward, 0.3, 0.4)
    assert reward.descend(nothing, given, given.normaliser())["gradient_penalty"] == 0.0
    torch.testing.assert_close(
        reward.model.perceptrons.weights[0].detach().squeeze(2), torch.tensor([0.3, 0.4]).expand(2, 2)
    )


def test_the_slope_is_taken_between_the_two_sides() -> None:
    """Demonstrations all at 2, own steps all at 4: every point lies between, nearly up to both ends, also with
    absorbing columns and padding, whose zeros are no steps. Of comparisons alone: between −1 and 1."""
    reward = learner(RewardConfig(inputs="s", hidden=(), normalise_inputs=False), sizes=(1, 1))

    def at(place: float) -> Trajectories:
        made = with_absorbing(walks([2, 4], (1, 1)), 9)
        return replace(made, data={**made.data, "observation": torch.full_like(made.data["observation"], place)
                                   * made.mask[..., None]})  # fmt: skip

    steps, points = reward._drawn(Batch(demonstrations=at(2.0), own=at(4.0)), Generator().manual_seed(0))
    assert set(steps.flatten().tolist()) == {2.0, 4.0}
    assert 2.0 <= float(points.min()) < 2.1
    assert 3.9 < float(points.max()) <= 4.0
    said = replace(compared(count=2), first=at(-1.0), second=at(1.0))
    _, points = reward._drawn(Batch(preferences=said), Generator().manual_seed(0))
    assert -1.0 <= float(points.min()) < -0.9
    assert 0.9 < float(points.max()) <= 1.0


@pytest.mark.parametrize("config", [
    RewardConfig(**SMALL, num_members=2, absorbing=True, bounding="tanh", bound=0.5),
    RewardConfig(**SMALL, num_members=2, inputs="s,a,s'", spectral_norm=True),
])  # fmt: skip
def test_gradients_of_loss_and_penalty_agree_with_finite_differences(config: RewardConfig) -> None:
    reward = learner(config)
    reward.fit_inputs(batch().demonstrations)
    reward.model.double()
    with torch.no_grad():
        for weight in reward.model.perceptrons.weights:
            weight *= 3.0
    reward.model.perceptrons.turn(200)
    shown, draw = batch().demonstrations, Generator().manual_seed(3)
    points = torch.randn(7, reward.model.features.num_inputs + config.absorbing, generator=draw).double()
    coefficient = torch.randn(shown.mask.shape, generator=draw).double()

    def value() -> Tensor:
        slopes = reward.model.slopes(points, differentiable=True)
        return (reward(shown) * coefficient * shown.rewarded).sum() + slopes.square().sum()

    value().backward()
    for parameter in reward.model.parameters():
        flat, slope = parameter.data.view(-1), parameter.grad.view(-1)
        for place in range(0, len(flat), 5):
            sides = []
            for change in (1e-5, -2e-5):
                flat[place] += change
                sides.append(value().item())
            flat[place] += 1e-5
            assert float(slope[place]) == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-5, abs=1e-6)


def test_spectral_norm_keeps_every_slope_below_one() -> None:
    """Of a linear reward (3, 4), whose only singular value is 5, nothing is left but the direction (0.6, 0.8)."""
    reward = learner(RewardConfig(inputs="s", hidden=(), spectral_norm=True, normalise_inputs=False), sizes=(2, 1))
    set_linear(reward, 3.0, 4.0)
    reward.model.perceptrons.turn()
    seen = reward.model.judge(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    torch.testing.assert_close(seen, torch.tensor([[0.6, 0.8]]))
    deep = learner(RewardConfig(**SMALL, spectral_norm=True, activation="relu"), replace(GENTLE, learning_rate=0.3))
    descend(deep, 20)
    assert float(deep.model.slopes(torch.randn(500, 5, generator=Generator()), differentiable=False).max()) < 1.02


def test_bounds() -> None:
    """An output of −30, 0.5 and 30 under a bound of 2: cut to −2, 0.5, 2; squashed to 2 tanh(½ ·); or left alone."""
    reach = torch.tensor([[-30.0], [0.5], [30.0]])
    expected = {"clamp": [-2.0, 0.5, 2.0], "tanh": [-2.0, 2.0 * math.tanh(0.25), 2.0], "none": [-30.0, 0.5, 30.0]}
    for bounding, wanted in expected.items():
        config = RewardConfig(inputs="s", hidden=(), bounding=bounding, bound=2.0, normalise_inputs=False)  # type: ignore[arg-type]
        reward = learner(config, sizes=(1, 1))
        set_linear(reward, 1.0)
        torch.testing.assert_close(reward.for_policy()(reach, reach, reach), torch.tensor(wanted))


def test_inputs_are_scaled_by_the_data_and_the_bounds() -> None:
    """States (1, 7) and (3, 7) in two steps: mean (2, 7), deviation (1, 0), of which 0.1 is the floor. Actions from
    −2 to 4 have the centre 1 and the reach 3; without bounds they stay. The next state is scaled as the state is."""
    config = RewardConfig(inputs="s,a,s'", hidden=())
    reward = MLPReward(2, 2, np.array([-2.0, -math.inf]), np.array([4.0, math.inf]), config, GENTLE, Generator())
    episode = Episode(
        observations=np.array([[1.0, 7.0], [3.0, 7.0], [99.0, 99.0]]), actions=np.zeros((2, 2)), rewards=np.zeros(2),
        terminated=False, truncated=True,
    )  # fmt: skip
    longer = replace(episode, observations=np.repeat(episode.observations[:1], 4, 0) + 2.0, actions=np.zeros((3, 2)))
    both = trajectories([episode, replace(longer, rewards=np.zeros(3))])
    reward.fit_inputs(both[:1])
    state, action = torch.tensor([[2.5, 7.2]]), torch.tensor([[4.0, 0.3]])
    seen = reward.model.features(state, action, torch.tensor([[0.0, 7.0]]))
    torch.testing.assert_close(seen, torch.tensor([[0.5, 2.0, 1.0, 0.3, -2.0, 0.0]]))
    plain = learner(replace(config, normalise_inputs=False), sizes=(2, 2), bound=5.0)
    plain.fit_inputs(both)
    torch.testing.assert_close(plain.model.features(state, action, state), torch.cat([state, action, state], 1))


def test_only_what_the_config_names_is_seen() -> None:
    shown = walks([5, 5])
    moved = {name: replace(shown, data={**shown.data, name: shown.data[name] + 1.0})
             for name in ("observation", "action", "next_observation")}  # fmt: skip
    for inputs, sees in (("s", 1), ("s,a", 2), ("s,a,s'", 3)):
        reward = learner(RewardConfig(inputs=inputs, **SMALL))  # type: ignore[arg-type]
        changes = [not torch.equal(reward(shown), reward(one)) for one in moved.values()]
        assert changes == [True] * sees + [False] * (3 - sees)


def test_members_that_are_alike_do_not_disagree() -> None:
    """Members that say 1 and 4 have the mean 2.5 and the standard deviation 1.5."""
    reward = learner(RewardConfig(inputs="s", hidden=(), num_members=2, absorbing=True))
    set_linear(reward, 0.0, 0.0, 0.0, 0.0, bias=1.0)
    shown = with_absorbing(walks([2, 4]), 5)
    assert not bool(reward.disagreement(shown).any())
    with torch.no_grad():
        reward.model.perceptrons.biases[0][1] = 4.0
    weight = torch.tensor([[1.0, 1.0, 3.0, 0.0], [1.0, 1.0, 1.0, 1.0]])  # three absorbing steps follow the first
    torch.testing.assert_close(reward(shown), 2.5 * weight)
    torch.testing.assert_close(reward.disagreement(shown), 1.5 * weight)
    assert bool(learner(RewardConfig(**SMALL, num_members=3)).disagreement(shown).any())


def test_every_member_learns_as_if_it_were_alone() -> None:
    config = RewardConfig(**SMALL, num_members=3, gradient_penalty=0.0, absorbing=True)
    together = learner(config)
    alone = []
    for member in range(3):
        one = learner(replace(config, num_members=1))
        for mine, theirs in zip(one.model.parameters(), together.model.parameters(), strict=True):
            mine.data.copy_(theirs.data[member : member + 1])
        alone.append(one)
    losses = [descend(one, 3)["loss"] for one in alone]
    torch.testing.assert_close(descend(together, 3)["loss"], torch.stack(losses).mean())
    for theirs, *mine in zip(together.model.parameters(), *(one.model.parameters() for one in alone), strict=True):
        torch.testing.assert_close(theirs.data, torch.cat([part.data for part in mine]))


def test_absorbing_steps_have_a_reward_of_their_own() -> None:
    """With weights (1, 1, 1 | −2) and the bias 0.5, an absorbing step is worth 0.5 − 2 = −1.5, whatever states look
    like; a column that stands for four is worth −6. Ordinary steps do not feel the fourth weight."""
    reward = learner(RewardConfig(inputs="s", hidden=(), absorbing=True, bounding="none"))
    reward.fit_inputs(walks([30], shift=4.0))
    set_linear(reward, 1.0, 1.0, 1.0, -2.0, bias=0.5)
    shown = with_absorbing(walks([3, 7]), 7)
    said = reward(shown).detach()
    assert float(said[0, 3]) == -6.0
    assert float(reward.for_policy().absorbing()) == -1.5
    assert reward.for_policy().absorbing().shape == ()
    inputs = (shown.data["observation"] - reward.model.features.centre) * reward.model.features.scale
    torch.testing.assert_close(said[shown.mask], inputs.sum(-1)[shown.mask] + 0.5)
    assert not bool(said[~shown.rewarded].any())
    without = learner(RewardConfig(inputs="s", hidden=(), bounding="none"))
    assert float(without.for_policy().absorbing()) == 0.0
    assert without(shown)[0, 3].item() == 0.0


def test_absorbing_reward_learns() -> None:
    reward = learner(RewardConfig(**SMALL, absorbing=True))
    before = float(reward.for_policy().absorbing())
    descend(reward)
    assert float(reward.for_policy().absorbing()) != before


def test_padding_is_worth_nothing_and_changes_nothing() -> None:
    reward, shown = learner(RewardConfig(**SMALL)), walks([3, 6])
    wider = shown.padded(9)
    torch.testing.assert_close(reward(wider)[:, :6], reward(shown))
    assert not bool(reward(wider)[~wider.rewarded].any())


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_micro_batches_add_up_with_the_penalty(rows: int) -> None:
    config = RewardConfig(**SMALL, num_members=2, absorbing=True, penalty_target=0.0)
    whole, pieces = (learner(config, replace(GENTLE, micro_batch_size=size)) for size in (0, rows))
    for _ in range(3):
        one, other = descend(whole), descend(pieces)
        assert one.keys() == other.keys()
        for name, value in one.items():
            torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-5)
    assert float(one["gradient_penalty"]) > 0.0
    for mine, theirs in zip(pieces.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_measuring_says_what_descending_will_say_and_changes_nothing() -> None:
    reward = learner(RewardConfig(**SMALL, num_members=2, spectral_norm=True, penalty_target=0.1))
    descend(reward)
    before = copy.deepcopy(reward.state_dict())
    measured = reward.measure(loss_of(reward), batch(), batch().normaliser())
    assert same(before, reward.state_dict())
    assert same(measured, descend(reward))
    assert {"loss", "gradient_penalty", "reward_gradient_norm", "demonstration_gap"} <= measured.keys()
    again = reward.measure(loss_of(reward), batch(), batch().normaliser())
    assert float(again["loss"]) < float(measured["loss"])


def test_a_checkpoint_holds_everything() -> None:
    config = RewardConfig(**SMALL, num_members=2, spectral_norm=True, normalise_output=True, absorbing=True)
    adam = DescentConfig(schedule="inverse-sqrt", micro_batch_size=2)
    first, second = learner(config, adam), learner(config, adam, seed=1)
    first.fit_inputs(batch().demonstrations)
    descend(first, 3)
    second.load_state_dict(reloaded([first.state_dict()])[0])
    assert same(first.state_dict(), second.state_dict())
    assert same(descend(first, 3), descend(second, 3))
    assert same(first.state_dict(), second.state_dict())
    step = [torch.randn(4, size) for size in (3, 2, 3)]
    assert torch.equal(first.for_policy()(*step), second.for_policy()(*step))
    assert first.state_dict()["generator"].dtype == torch.uint8


def test_one_seed_one_reward_and_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    seeds = [learner(RewardConfig(**SMALL), seed=seed) for seed in (1, 1, 2)]
    for one in seeds:
        descend(one, 2)
    states = [one.state_dict() for one in seeds]
    assert same(states[0], states[1])
    assert not same(states[0], states[2])
    assert torch.equal(before, torch.get_rng_state())


def test_the_policy_always_sees_the_current_reward() -> None:
    reward = learner(RewardConfig(**SMALL, num_members=2, inputs="s,a,s'"))
    shown, shows = walks([6]), reward.for_policy()
    step = [shown.data[name][0] for name in ("observation", "action", "next_observation")]
    before = shows(*step)
    descend(reward)
    after = shows(*step)
    assert not torch.equal(before, after)
    assert not after.requires_grad
    torch.testing.assert_close(after, reward(shown)[0].detach())
    kept = reward.frozen()
    descend(reward)
    torch.testing.assert_close(kept(shown)[0], after)
    assert not torch.equal(shows(*step), after)
    assert not kept(shown).requires_grad


def test_the_scale_of_the_output_follows_what_was_seen_and_keeps_zero() -> None:
    """A reward that is 0 on half of the steps and 6 on the others has the standard deviation 3, whatever its mean;
    the policy sees 0 and 2. Nothing seen yet: the reward as it is. What comes later counts 0.01: after five such looks
    one at 0 and 600 (bounded: 10) has the share 0.01 / (0.01 + 0.99 (1 − 0.99⁵)) = 0.1709, and 6 is shown as
    6 / √(0.8291 · 18 + 0.1709 · 50 − (0.8291 · 3 + 0.1709 · 5)²) = 1.7107."""
    reward = learner(RewardConfig(inputs="s", hidden=(), normalise_inputs=False, normalise_output=True), sizes=(1, 1))
    set_linear(reward, 1.0)
    ends = torch.tensor([[0.0], [6.0]])
    shows = reward.for_policy()
    torch.testing.assert_close(shows(ends, ends, ends), torch.tensor([0.0, 6.0]))
    for _ in range(5):
        reward.model.watch(ends.repeat(100, 1))
    torch.testing.assert_close(shows(ends, ends, ends), torch.tensor([0.0, 2.0]))
    reward.model.watch(100.0 * ends)
    assert float(shows(ends, ends, ends)[1]) == pytest.approx(1.7107, abs=1e-4)
    plain = learner(RewardConfig(**SMALL))
    descend(plain, 3)
    step = [torch.randn(4, size) for size in (3, 2, 3)]
    inputs = plain.model.features(*step)
    torch.testing.assert_close(plain.for_policy()(*step), plain.model.judge(inputs)[0].detach())


def test_comparisons_teach_what_is_better() -> None:
    """Labels follow the sum of the observations, in steps of which the reward has never seen the sum."""
    config = RewardConfig(hidden=(32,), inputs="s", num_members=2)
    reward = learner(config, DescentConfig(learning_rate=1e-2))
    said = compared(count=128)
    given = Batch(preferences=said)

    method, phase = replace(METHODS["aihf"], gamma=1.0), Phase(name="compare", preference="bradley-terry")
    loss = joint_loss(method, phase, log_prob=reward, demonstration_reward=None, preference_reward=reward)
    for _ in range(150):
        reward.descend(loss, given, given.normaliser())
    fresh = walks([40], seed=77)
    judged, truth = reward(fresh)[0].detach(), fresh.data["observation"][0].sum(-1)
    assert float(torch.corrcoef(torch.stack([judged, truth]))[0, 1]) > 0.95


@pytest.mark.gpu
def test_a_reward_on_a_gpu_learns_as_on_a_cpu() -> None:
    config = RewardConfig(**SMALL, num_members=2, absorbing=True)
    both = [MLPReward(3, 2, [-1.0] * 2, [1.0] * 2, config, GENTLE, Generator(), device) for device in ("cpu", "cuda")]
    for one in both:
        one.fit_inputs(batch().demonstrations)
    said = [descend(one, 3)["loss"].cpu() for one in both]
    torch.testing.assert_close(*said, rtol=1e-4, atol=1e-5)
    shown = both[1](batch().demonstrations)
    assert shown.is_cuda
    torch.testing.assert_close(shown.cpu(), both[0](batch().demonstrations), rtol=1e-4, atol=1e-5)


# Files, and other libraries.


def saved(tmp_path: Path, sizes: tuple[int, int] = (3, 1), **settings: Any) -> tuple[MLPReward, Path]:
    reward = learner(RewardConfig(**{**SMALL, **settings}), sizes=sizes, bound=2.0)
    reward.fit_inputs(walks([50], sizes))
    reward.model.watch(reward.model.features.of(shown := walks([50], sizes), shown.mask))
    save_reward(tmp_path / "it.safetensors", reward)
    return reward, tmp_path / "it.safetensors"


def test_a_file_holds_the_whole_reward(tmp_path: Path) -> None:
    reward, path = saved(tmp_path, num_members=3, spectral_norm=True, absorbing=True, normalise_output=True)
    back, step = load_reward(path), [torch.randn(9, size) for size in (3, 1, 3)]
    assert torch.equal(back.for_policy()(*step), reward.for_policy()(*step))
    assert torch.equal(back.for_policy().absorbing(), reward.for_policy().absorbing())
    assert back.config == reward.config
    assert [one.name for one in tmp_path.iterdir()] == ["it.safetensors"]
    save_reward(tmp_path / "again", back)
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_a_reward_is_a_function_on_arrays(tmp_path: Path) -> None:
    reward, path = saved(tmp_path, inputs="s,a,s'")
    function = reward_function(path)
    draw = np.random.default_rng(0)
    state, action, after = (draw.normal(size=(4, 5, size)) for size in (3, 1, 3))
    whole = function(state, action, after)
    assert whole.shape == (4, 5)
    assert whole.dtype == np.float32
    single = function(state[1, 2], action[1, 2], after[1, 2])
    assert single.shape == ()
    assert float(single) == pytest.approx(float(whole[1, 2]), rel=1e-5)
    step = [torch.from_numpy(one[1]).float() for one in (state, action, after)]
    np.testing.assert_allclose(whole[1], reward.for_policy()(*step).numpy(), rtol=1e-5)
    with pytest.raises(
        UserError, match=r"shapes \[4, 5, 3\], \[4, 5, 2\], \[4, 5, 3\]; expected \[..., 3\], \[..., 1\]"
    ):
        function(state, np.zeros((4, 5, 2)), after)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    _, path = saved(tmp_path)
    whole, broken = path.read_bytes(), tmp_path / "broken"
    for length in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        broken.write_bytes(whole[:length])
        with pytest.raises(UserError, match="broken"):
            load_reward(broken)
    for place in (3, 40, len(whole) // 2, len(whole) - 2):
        broken.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(UserError, match="broken"):
            load_reward(broken)
    save_file(load_file(path), broken)
    with pytest.raises(UserError, match="no learnt reward"):
        load_reward(broken)
    with pytest.raises(UserError, match="is not there"):
        load_reward(tmp_path / "absent")
    with pytest.raises(UserError, match="cannot be written"):
        save_reward(tmp_path / "no folder" / "it", load_reward(path))


def test_an_environment_pays_the_learnt_reward(tmp_path: Path) -> None:
    _, path = saved(tmp_path)
    env, function = LearntReward(gym.make("Pendulum-v1"), path), reward_function(path)
    before, _ = env.reset(seed=0)
    for _ in range(3):
        action = env.action_space.sample()
        after, reward, *_, info = env.step(action)
        assert reward == pytest.approx(float(function(before, action, after)))
        assert info["true_reward"] != reward
        before = after
    with pytest.warns(UserWarning, match="different from the unwrapped"):
        check_env(env, skip_render_check=True)
    assert env.spec is not None
    again = env.spec.make()
    assert again.get_wrapper_attr("learnt")(before, action, after) == function(before, action, after)


def test_an_environment_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    _, path = saved(tmp_path)
    with pytest.raises(UserError, match="observations of 3 numbers"):
        LearntReward(gym.make("CartPole-v1"), path)
    narrow = gym.wrappers.RescaleAction(gym.make("Pendulum-v1"), np.float32(-1.0), np.float32(1.0))
    with pytest.raises(UserError, match=r"actions from \[-2.0\] to \[2.0\]"):
        LearntReward(narrow, path)


class Ends(gym.Wrapper[Any, Any, Any, Any]):
    """A world that ends at the second step."""

    def reset(self, **given: Any) -> Any:
        self.count = 0
        return self.env.reset(**given)

    def step(self, action: Any) -> Any:
        observation, reward, _, truncated, info = self.env.step(action)
        self.count += 1
        return observation, reward, self.count == 2, truncated, info


def test_with_a_horizon_the_end_pays_for_the_steps_after_it(tmp_path: Path) -> None:
    """The world ends after 2 of 10 steps: the second step also pays 8 absorbing ones, or discounted ones without end,
    ½ + ¼ + …; a toll is paid in each."""
    reward, path = saved(tmp_path, absorbing=True)
    absorbing = float(reward.for_policy().absorbing())
    paid = []
    for horizon, discount, toll in ((None, 1.0, 0.0), (10, 1.0, 0.0), (10, 0.5, 0.0), (None, 1.0, 0.25)):
        env = LearntReward(Ends(gym.make("Pendulum-v1")), path, horizon=horizon, discount=discount, toll=toll)
        env.reset(seed=0)
        paid.append([float(env.step(np.array([0.5], np.float32))[1]) for _ in range(2)])
    assert paid[1][0] == paid[0][0]
    assert paid[1][1] - paid[0][1] == pytest.approx(8 * absorbing, rel=1e-4)
    assert paid[2][1] - paid[0][1] == pytest.approx(absorbing, rel=1e-4)
    np.testing.assert_allclose(np.subtract(paid[0], paid[3]), 0.25, atol=1e-6)


def test_another_library_trains_on_it(tmp_path: Path) -> None:
    """Stock SAC is paid −cos θ in every step, the learnt reward of this file, and learns from nothing else."""
    from stable_baselines3 import SAC

    reward = learner(RewardConfig(inputs="s", hidden=(), normalise_inputs=False), sizes=(3, 1), bound=2.0)
    set_linear(reward, -1.0, 0.0, 0.0)
    save_reward(tmp_path / "it", reward)
    env = LearntReward(gym.make("Pendulum-v1"), tmp_path / "it")
    model = SAC("MlpPolicy", env, learning_starts=100, batch_size=64, seed=0, policy_kwargs={"net_arch": [32, 32]})
    model.learn(400)
    stored = model.replay_buffer
    assert stored is not None
    seen, paid = stored.observations[:400, 0], stored.rewards[:400, 0]
    np.testing.assert_allclose(paid, -seen[:, 0], atol=1e-5)
