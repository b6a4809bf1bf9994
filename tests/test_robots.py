"""The tasks of the control world: the table, the ants, and simulators that are checked, quiet and resume to the bit."""

from __future__ import annotations

import hashlib
import json
import pickle
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from safetensors.torch import save_file

from envs.robots.quiet import building
from envs.robots.simulators import BrokenSimulator, Simulator, make
from envs.robots.table import ROBOTS, robot
from unified_irl.errors import UserError
from unified_irl.state_codec import StateEncoder

VECTOR = spaces.Box(-np.inf, np.inf, (3,), np.float64)
ACTION = spaces.Box(-1.0, 1.0, (2,), np.float32)
LONG = {"swimmer", "halfcheetah", "ant", "transfer-ant", "crippled-ant"}
"""Robots on which uniform actions last long."""


class Faulty(gymnasium.Env):
    """Counts its steps; in the third of an episode it does what it is told."""

    def __init__(self, fault: str = "", seen: spaces.Space = VECTOR, done: spaces.Space = ACTION) -> None:
        self.fault, self.observation_space, self.action_space = fault, seen, done
        self.count = 0
        if fault == "object":
            self.engine = object()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        if self.fault == "start":
            return np.full(3, np.nan), {}
        return self.np_random.uniform(size=3), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        observation: Any = np.full(3, float(self.count))
        reward = 1.0
        if self.count == 3:
            if self.fault == "raises":
                raise RuntimeError("the motor burnt out")
            observation = {
                "nan": np.array([1.0, np.nan, 0.0]),
                "opposite": np.array([np.inf, -np.inf, 0.0]),
                "huge": np.array([1e300, 0.0, 0.0]),
                "shape": np.zeros(4),
                "words": "fallen over",
                "large": np.full(3, 1e30),
            }.get(self.fault, observation)
            reward = np.nan if self.fault == "reward" else reward
        return observation, reward, self.fault == "ends" and self.count == 5, False, {}


def faulty(fault: str = "", **spaces_: Any) -> str:
    """The name of such a robot, known to Gymnasium from now on; its episodes last five steps."""
    name = f"Faulty{fault.capitalize()}{len(gymnasium.registry)}-v0"
    gymnasium.register(id=name, entry_point=Faulty, max_episode_steps=5, kwargs={"fault": fault, **spaces_})
    return f"gym:{name}"


def random_actions(simulator: Simulator, count: int, seed: int = 0) -> np.ndarray:
    size = (count, simulator.action_size)
    return np.random.default_rng(seed).uniform(simulator.low, simulator.high, size).astype(np.float32)


def random_return(simulator: Simulator, seed: int) -> float:
    """As the random scores of the table were measured."""
    draw = np.random.default_rng(seed)
    simulator.reset(seed)
    total = 0.0
    while True:
        action = draw.uniform(simulator.low, simulator.high).astype(np.float32)
        _, reward, terminated, truncated = simulator.step(action)
        total += reward
        if terminated or truncated:
            return total


# The table


def test_the_table_needs_no_heavy_library() -> None:
    code = (
        "import sys, envs.robots.table\n"
        "print([name for name in ('torch', 'gymnasium', 'mujoco', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_robots_are_found_by_name_or_id() -> None:
    assert robot("hopper").id == "Hopper-v5"
    other = robot("gym:Pusher-v5")
    assert (other.id, other.horizon, other.random_score, other.expert_score) == ("Pusher-v5", None, None, None)
    with pytest.raises(UserError, match=r"no robot called 'hoper'. Did you mean hopper"):
        robot("hoper")
    with pytest.raises(UserError, match=r"Did you mean .*halfcheetah"):
        robot("HalfCheetah-v5")
    with pytest.raises(UserError, match="lacks an id"):
        robot("gym:")


@pytest.mark.parametrize("name", ROBOTS)
def test_the_table_tells_the_truth_about_episodes(name: str) -> None:
    """Uniform actions topple every robot that can fall within a few episodes; the others last to their horizon."""
    simulator = Simulator(name)
    assert simulator.horizon == ROBOTS[name].horizon
    actions = random_actions(simulator, ROBOTS[name].horizon or 0)
    fell = False
    for seed in range(10 if ROBOTS[name].can_fall else 1):
        simulator.reset(seed)
        for action in actions:
            _, _, terminated, truncated = simulator.step(action)
            if terminated or truncated:
                break
        assert terminated != truncated
        assert terminated or simulator.steps == simulator.horizon
        fell = fell or terminated
    assert fell == ROBOTS[name].can_fall


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in LONG else []) for n in ROBOTS])
def test_random_scores_are_what_uniform_actions_earn(name: str) -> None:
    simulator = Simulator(name)
    measured = np.mean([random_return(simulator, seed) for seed in range(100)])
    assert measured == pytest.approx(ROBOTS[name].random_score, rel=0.01, abs=0.1)


@pytest.mark.parametrize("name", ROBOTS)
def test_gymnasium_accepts_every_task(name: str) -> None:
    """Its checker warns of unbounded observations and unscaled actions, which belong to the published tasks."""
    with building(), warnings.catch_warnings(record=True) as seen:  # it builds the task again
        warnings.simplefilter("always")
        check_env(make(name).unwrapped, skip_render_check=True)
    expected = ("value is -infinity", "value is infinity", "symmetric and normalized space")
    assert not [str(one.message) for one in seen if not any(part in str(one.message) for part in expected)]


# The ants


def test_the_crippled_ant_has_short_weak_back_legs() -> None:
    """A leg runs along a diagonal, so a segment of 0.1 by 0.1 is a capsule of half length 0.1 · √2 / 2."""
    healthy, crippled = (make(name).unwrapped for name in ("transfer-ant", "crippled-ant"))
    assert healthy.observation_space == crippled.observation_space
    for env, thigh, shin, gear in ((healthy, 0.2, 0.4, 30.0), (crippled, 0.1, 0.2, 1.0)):
        model = env.model  # type: ignore[attr-defined]
        for leg, front in (("1", True), ("2", True), ("3", False), ("4", False)):
            lengths = (0.2, 0.4) if front else (thigh, shin)
            for joint, length in zip((f"hip_{leg}", f"ankle_{leg}"), lengths, strict=True):
                body = model.joint(joint).bodyid[0]
                half = model.geom_size[model.body_geomadr[body], 1]
                assert half == pytest.approx(length * 2**0.5 / 2)
                motor = list(model.actuator_trnid[:, 0]).index(model.joint(joint).id)
                assert model.actuator_gear[motor, 0] == (30.0 if front else gear)
            ankle = model.joint(f"ankle_{leg}").bodyid[0]
            assert np.abs(model.body_pos[ankle]).tolist() == [lengths[0], lengths[0], 0.0]


@pytest.mark.parametrize("is_low", [False, True])
def test_the_reward_of_the_ants(is_low: bool) -> None:
    """A step lasts 0.05 s. After 100 of them without action the ant stands, feels the floor, and is not low.

    Only where nothing holds it up it gets lower than 0.2, its torso being a ball of radius 0.25.
    """
    env: Any = make("crippled-ant").unwrapped
    env.reset(seed=0)
    for _ in range(100):
        env.step(np.zeros(8, np.float32))
    position, velocity = env.data.qpos.copy(), np.zeros(14)
    velocity[0] = 1.0
    if is_low:
        env.model.geom_contype[:] = 0
        position[2] = 0.1
    env.set_state(position, velocity)
    before = float(env.data.body("torso").xpos[0])
    action = np.linspace(-1.0, 1.0, 8).astype(np.float32)
    _, reward, terminated, _, _ = env.step(action)
    speed = (float(env.data.body("torso").xpos[0]) - before) / 0.05
    contact = float(np.square(np.clip(env.data.cfrc_ext, -1, 1)).sum())
    assert speed > 0.1
    assert (contact == 0.0) == is_low
    assert reward == pytest.approx(speed - 0.01 * float(np.square(action).sum()) - 0.0005 * contact - float(is_low))
    assert not terminated


def test_ants_survive_pickling() -> None:
    for name, gear in (("transfer-ant", 30.0), ("crippled-ant", 1.0)):
        again = pickle.loads(pickle.dumps(make(name).unwrapped))
        assert again.model.actuator_gear[0, 0] == gear


# What cannot be used


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("gym:Foo-v0", "not to be had from Gymnasium: .*Foo"),
        ("gym:Hopper-v9", "v9.* `v5`"),
        ("gym:nosuchpackage:Foo-v0", "nosuchpackage"),
        ("gym:no id at all", "could not be built: .*Malformed"),
        ("gym:CartPole-v1", r"its actions are Discrete\(2\)"),
        ("gym:FrozenLake-v1", r"its observations are Discrete\(16\)"),
        ("gym:Blackjack-v1", "its observations are Tuple"),
    ],
)
def test_refusals_say_why(name: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        make(name)


def test_a_missing_package_is_named() -> None:
    try:
        import Box2D  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match=r"package that is not installed: Box2D.*gymnasium\[box2d\]"):
            make("gym:BipedalWalker-v3")
    else:
        assert make("gym:BipedalWalker-v3").action_space.shape == (4,)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"seen": spaces.Dict({"joints": VECTOR})}, "observations are Dict"),
        ({"seen": spaces.Box(0, 255, (8, 8, 3), np.uint8)}, r"images of shape \[8, 8, 3\]"),
        ({"done": spaces.Box(-np.inf, np.inf, (2,), np.float32)}, "between -inf and inf; expected finite bounds"),
        ({"done": spaces.Box(0.0, 0.0, (2,), np.float32)}, "between 0.0 and 0.0"),
        ({"done": spaces.Box(0, 3, (2,), np.int64)}, "expected continuous ones"),
        ({"done": spaces.MultiBinary(2)}, "expected continuous ones"),
    ],
)
def test_unfit_spaces_are_refused(given: dict[str, spaces.Space], why: str) -> None:
    with pytest.raises(UserError, match=why):
        make(faulty(**given))


# What a simulator returns


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        ("nan", "whose entry 1 is nan in step 3"),
        ("opposite", "whose entry 0 is inf in step 3"),
        ("huge", "whose entry 0 is inf in step 3"),
        ("shape", r"shape \[4\] instead of \[3\] in step 3"),
        ("words", "raised ValueError: .* in step 3"),
        ("raises", "raised RuntimeError: the motor burnt out in step 3"),
        ("reward", "paid a reward of nan in step 3"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_a_broken_simulator_is_named_with_what_came_back(fault: str, what: str) -> None:
    name = faulty(fault)
    simulator = Simulator(name)
    simulator.reset(0)
    for _ in range(2):
        simulator.step(np.zeros(2, np.float32))
    with pytest.raises(BrokenSimulator, match=f"The simulator '{name}' .*{what}"):
        simulator.step(np.zeros(2, np.float32))


def test_a_broken_start_and_a_broken_action() -> None:
    with pytest.raises(BrokenSimulator, match="entry 0 is nan when an episode began"):
        Simulator(faulty("start")).reset(0)
    pendulum = Simulator("pendulum")
    pendulum.reset(0)
    with pytest.raises(BrokenSimulator, match="action it was given was not finite"):
        pendulum.step(np.array([np.nan], np.float32))


def test_large_numbers_are_not_broken() -> None:
    """1e30 fits float32, though its square does not."""
    simulator = Simulator(faulty("large"))
    simulator.reset(0)
    for _ in range(3):
        observation, *_ = simulator.step(np.zeros(2, np.float32))
    assert observation.tolist() == [np.float32(1e30)] * 3
    assert observation.dtype == np.float32


@pytest.mark.parametrize(("fault", "end"), [("", (False, True)), ("ends", (True, False))])
def test_time_limits_truncate_and_the_world_terminates(fault: str, end: tuple[bool, bool]) -> None:
    """The limit is five steps; a world that ends the episode in that very step terminates it."""
    simulator = Simulator(faulty(fault))
    for _ in range(2):
        simulator.reset(0)
        ends = [simulator.step(np.zeros(2, np.float32))[2:] for _ in range(5)]
        assert ends == [(False, False)] * 4 + [end]


@pytest.mark.parametrize("name", ["pendulum", "humanoid"])
def test_checking_costs_less_than_ten_microseconds(name: str) -> None:
    """The environment answers at once, so what is left of the time is ours. The best of many: the machine is shared."""
    simulator = Simulator(name)
    simulator.reset(0)
    action = simulator.high * 0
    answer = simulator.env.unwrapped.step(action)
    simulator.env.unwrapped.step = lambda _: answer  # type: ignore[method-assign]
    times = []
    for _ in range(20):
        begin = time.perf_counter()
        for _ in range(500):
            simulator.step(action)
        times.append((time.perf_counter() - begin) / 500)
    assert min(times) < 10e-6


# Leaving and coming back


def continued(simulator: Simulator) -> str:
    """A digest of 50 more steps, the episode that the environment's own generator begins then, and 20 steps of it."""
    digest = hashlib.sha256()
    for n, action in enumerate(random_actions(simulator, 70, seed=1)):
        observation, *rest = simulator.step(action)
        digest.update(observation.tobytes() + repr(rest).encode())
        if n == 49 or rest[1] or rest[2]:
            digest.update(np.asarray(simulator.env.reset()[0]).tobytes())
    return digest.hexdigest()


def after_37_steps(name: str, seed: int = 0) -> Simulator:
    """An episode that ends on the way is followed by another."""
    simulator = Simulator(name)
    simulator.reset(seed)
    for action in random_actions(simulator, 37):
        _, _, terminated, truncated = simulator.step(action)
        if terminated or truncated:
            seed += 1
            simulator.reset(seed)
    return simulator


RESUME = """
import json, sys
from safetensors.torch import load_file
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from unified_irl.state_codec import decode_state
from test_robots import continued, Simulator
folder = Path(sys.argv[1])
states = decode_state(json.loads((folder / "states.json").read_text()), load_file(folder / "states.safetensors"))
digests = {}
for name, state in states.items():
    simulator = Simulator(name)
    simulator.restore(state)
    digests[name] = continued(simulator)
print(json.dumps(digests))
"""


def test_every_robot_resumes_to_the_bit_in_another_process(tmp_path: Path) -> None:
    states, digests = {}, {}
    for name in ROBOTS:
        simulator = after_37_steps(name)
        states[name] = simulator.state()
        digests[name] = continued(simulator)
    encoder = StateEncoder()
    (tmp_path / "states.json").write_text(json.dumps(encoder.encode(states, "states")))
    save_file(encoder.tensors, tmp_path / "states.safetensors")
    command = [sys.executable, "-c", RESUME, str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == digests


@pytest.mark.parametrize("name", ["pendulum", "ant", "reacher"])
def test_going_back_within_one_process(name: str) -> None:
    """A saved state is a copy: the simulator goes on, and back to it more than once."""
    simulator = after_37_steps(name)
    state, where = simulator.state(), simulator.observation.copy()
    first = continued(simulator)
    for _ in range(2):
        assert simulator.restore(state).tolist() == where.tolist()
        assert continued(simulator) == first
    other = after_37_steps(name, seed=50)
    assert continued(other) != first


def test_the_time_limit_is_restored() -> None:
    simulator = Simulator(faulty())
    simulator.reset(0)
    for _ in range(3):
        simulator.step(np.zeros(2, np.float32))
    again = Simulator(simulator.name)
    again.restore(simulator.state())
    assert [again.step(np.zeros(2, np.float32))[3] for _ in range(2)] == [False, True]


def test_what_cannot_be_saved_says_so() -> None:
    simulator = Simulator(faulty("object"))
    assert not simulator.can_restore
    assert simulator.obstacle == "attribute 'engine' of Faulty is a object"
    with pytest.raises(UserError, match="cannot be saved within an episode: attribute 'engine'"):
        simulator.state()


def test_states_of_another_robot_or_version_are_refused() -> None:
    hopper = Simulator("hopper")
    hopper.reset(0)
    state = hopper.state()
    with pytest.raises(UserError, match="saved simulator is a 'hopper' and this one a 'walker2d'"):
        Simulator("walker2d").restore(state)
    state["physics"]["derived"] = state["physics"]["derived"][:-1]
    with pytest.raises(UserError, match="another size"):
        hopper.restore(state)


def test_episodes_begin_in_demonstrated_states() -> None:
    """A hopper sees joints and velocities only, so the same physics look the same; what follows is almost the same."""
    shown = after_37_steps("hopper")
    physics, seen = shown.physics(), shown.observation.copy()
    other = Simulator("hopper")
    assert other.reset_to(physics, seed=9).tolist() == seen.tolist()
    action = random_actions(shown, 1)[0]
    for simulator in (shown, other):
        simulator.step(action)
    assert other.observation == pytest.approx(shown.observation, abs=1e-3)
    assert other.steps == 1
    with pytest.raises(UserError, match=r"shape \[3\] .* expected 12 finite numbers, 6 positions and then 6"):
        other.reset_to(np.zeros(3), seed=0)
    with pytest.raises(UserError, match="no physical state"):
        Simulator("pendulum").physics()


def test_an_ant_put_back_feels_about_what_it_felt() -> None:
    """27 entries are joints and velocities, which return exactly; the other 78 are forces, mostly those of before."""
    shown, other = after_37_steps("ant"), Simulator("ant")
    seen = other.reset_to(shown.physics(), seed=9)
    assert seen[:27].tolist() == shown.observation[:27].tolist()
    assert np.mean(np.abs(seen[27:] - shown.observation[27:]) < 1e-3) > 0.9


# Never ending


def test_a_world_can_be_told_to_go_on_after_a_fall() -> None:
    """A hopper that acts at random falls within 200 steps; told to go on, it is cut by its time limit."""
    falls, goes_on = Simulator("hopper"), Simulator("hopper", never_ends=True)
    for simulator, end in ((falls, True), (goes_on, False)):
        simulator.reset(0)
        steps = [
            simulator.step(action) for action in random_actions(simulator, 200)[: 200 if goes_on is simulator else 60]
        ]
        assert any(terminated for _, _, terminated, _ in steps) == end
    with pytest.raises(UserError, match="cannot be told to go on after a fall"):
        Simulator("pendulum", never_ends=True)


# Quiet


def test_building_every_robot_prints_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "from envs.robots.simulators import Simulator\n"
        "from envs.robots.table import ROBOTS\n"
        "for name in ROBOTS:\n"
        "    Simulator(name).reset(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    assert list(tmp_path.iterdir()) == []


def unstable_step() -> None:
    """MuJoCo warns of a position that is no number."""
    model = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><body><joint/><geom size='1'/></body></worldbody></mujoco>"
    )
    data = mujoco.MjData(model)
    data.qpos[0] = np.nan
    mujoco.mj_step(model, data)


def test_other_warnings_get_through() -> None:
    with pytest.warns(RuntimeWarning, match="MuJoCo: Nan, Inf or huge value in QPOS"), building():
        unstable_step()
    heard: list[str] = []
    mujoco.set_mju_user_warning(heard.append)
    try:
        with building():
            mujoco.MjModel.from_xml_string("<mujoco><compiler settotalmass='1'/><worldbody><body><geom size='1'/>"
                                           "</body></worldbody></mujoco>")  # fmt: skip
            unstable_step()
        assert len(heard) == 1
        assert "QPOS" in heard[0]
        unstable_step()
        assert len(heard) == 2
    finally:
        mujoco.set_mju_user_warning(None)


def test_the_ants_are_known_to_whoever_asks_gymnasium() -> None:
    """In a program that has imported nothing of this project."""
    code = (
        "import gymnasium\n"
        "env = gymnasium.make('envs.robots.ants:unified-irl/CrippledAnt-v0')\n"
        "print(env.reset(seed=0)[0].shape)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("(105,)\n", 0), done.stderr
