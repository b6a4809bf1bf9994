"""How fast the control world learns, beside Stable-Baselines3, `imitation`, and the arithmetic that it needs."""

from __future__ import annotations

import statistics as plain
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from unified_irl.errors import UserError

if TYPE_CHECKING:
    import torch

Report = Callable[[str], None]
GEMM_SIZES = (256, 1024)
"""Sides of the products whose throughput is taken: larger ones fill a processor, smaller ones stay in its cache."""
HOW_TO_MAKE = (
    "imitation needs an environment of its own, whose Python --imitation-python names. To make one: "
    "python3.11 -m venv imitation-venv && imitation-venv/bin/pip install torch==2.13.0 imitation==1.0.1 "
    "'gymnasium[mujoco]==0.29.1' 'mujoco<3' imageio 'numpy<2'"
)


@dataclass(frozen=True, kw_only=True)
class BenchControlSpeedConfig:
    """What is timed. Contenders take turns, and ratios are of blocks that lie side by side."""

    blocks: int = 8
    """Blocks of each contender."""
    seconds: float = 5.0
    """Length of a block; a round that has begun is finished."""
    threads: tuple[int, ...] = (1, 2)
    """Numbers of threads tried; each contender then gets the one that suits it best."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where networks are in the contest of SAC; on a GPU our trainer's updates are captured graphs. The loop stays on
    the CPU."""
    learning_starts: int = 1000
    """Steps of random actions before learning, which are not timed."""
    warm_up: int = 500
    """Steps of learning after them that are not timed either."""
    loop_robot: Literal["hopper", "halfcheetah"] = "halfcheetah"
    """The task of the whole loop. On hopper, episodes of random actions are far shorter than those of an expert, and so
    the demonstration that both sides are given would be."""
    imitation_python: str = ""
    """The Python of an environment with imitation 1.0.1; without one that part is left out."""
    out: str = ""
    """A JSON file for the numbers; by default nothing is kept."""

    def __post_init__(self) -> None:
        for name in ("blocks", "seconds", "learning_starts", "warm_up"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} is {getattr(self, name)}; expected more than 0.")
        if not self.threads or min(self.threads) < 1:
            raise UserError(f"threads is {self.threads}; expected one or more numbers of threads, such as 1 2.")


def update_flop(
    num_observations: int, num_actions: int, hidden: tuple[int, ...], batch_size: int, num_critics: int
) -> int:
    """Floating-point operations of one SAC update.

    A pass of a batch through a network, forward, or backward to its weights, or backward to its inputs, takes a
    multiplication and an addition per row and parameter. The actor makes four: forward on the observations and on the
    next ones at once (two), then backward to its weights and to its layers' inputs. A critic makes six: the target
    critic on the next observations; forward and both ways backward for its own loss; forward and backward to its
    inputs for the actor's. Adam, the activations and the first layers' unneeded slopes by their inputs (counted, under
    2 %) change little.
    """
    actor = _num_parameters(num_observations, hidden, 2 * num_actions)
    critics = num_critics * _num_parameters(num_observations + num_actions, hidden, 1)
    return 2 * batch_size * (4 * actor + 6 * critics)


def _num_parameters(num_inputs: int, hidden: tuple[int, ...], num_outputs: int) -> int:
    widths = (num_inputs, *hidden, num_outputs)
    return sum((inputs + 1) * outputs for inputs, outputs in pairwise(widths))


def gemm_throughput(kind: torch.dtype, threads: int, seconds: float) -> float:
    """Floating-point operations per second of matrix products, at the size that this machine likes best."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    best = 0.0
    for size in GEMM_SIZES:
        one, other = (torch.ones(size, size, dtype=kind) for _ in range(2))
        out = one @ other
        speeds, end = [], time.perf_counter() + seconds
        while not speeds or time.perf_counter() < end:
            began = time.perf_counter()
            for _ in range(10):
                torch.mm(one, other, out=out)
            speeds.append(20 * size**3 / (time.perf_counter() - began))
        best = max(best, plain.median(speeds))
    torch.set_num_threads(before)
    return best


def simulator_step(robot: str, num_steps: int) -> float:
    """Seconds of a step of the simulator alone, by random actions."""
    from envs.robots.simulators import Simulator

    env = Simulator(robot).env
    env.action_space.seed(0)
    env.reset(seed=0)
    began = time.perf_counter()
    for _ in range(num_steps):
        *_, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()
    return (time.perf_counter() - began) / num_steps


def floors(config: BenchControlSpeedConfig) -> dict[str, Any]:
    """What one step and its update take if only products are counted, at the measured speed of products."""
    import torch

    from envs.robots.simulators import Simulator

    one = Simulator("hopper")
    flop = update_flop(one.observation_size, one.action_size, (256, 256), 256, 2)
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    return {
        "update_flop": flop,
        "simulator_seconds": simulator_step("hopper", round(400 * config.seconds)),
        "products": [
            {"kind": name, "threads": threads, "flop_per_second": speed, "update_seconds": flop / speed}
            for name, kind in kinds.items()
            for threads in config.threads
            for speed in [gemm_throughput(kind, threads, config.seconds / 20)]
        ],
    }


def sac_part(config: BenchControlSpeedConfig, report: Report) -> dict[str, Any]:
    """SAC on Hopper-v5: who makes how many steps per second, one update each."""
    from experiments.peers.contest import Contender, contest, ratio

    report(f"SAC on Hopper-v5, 256-256, batches of 256, one update per step, {config.device}")
    floor = floors(config) if config.device == "cpu" else None
    told = {"learning_starts": config.learning_starts, "warm_up": config.warm_up, "device": config.device}
    names = ("trainer, half", "trainer", "FastSAC", "SAC")
    contenders = [Contender(name=name, script="actor_critics.py", options=told | {"which": name}) for name in names]
    raced = contest(contenders, threads=config.threads, seconds=config.seconds, blocks=config.blocks, report=report)
    ratios = {name: ratio(raced[name], raced["SAC"]) for name in names[:-1]}
    for name in names:
        _say(name, raced[name], ratios.get(name), "Stable-Baselines3", report)
    if floor is None:
        return {"contenders": raced, "ratios_to_sac": ratios}
    report(
        f"one update is {floor['update_flop'] / 1e6:.0f} MFLOP: "
        + "; ".join(
            f"{one['kind']}, {one['threads']} threads {one['flop_per_second'] / 1e9:.0f} GFLOP/s, so "
            f"{1e3 * one['update_seconds']:.2f} ms"
            for one in floor["products"]
        )
        + f"; a step of the simulator takes {1e3 * floor['simulator_seconds']:.3f} ms"
    )
    return {"contenders": raced, "ratios_to_sac": ratios, "floor": floor}


def loop_part(config: BenchControlSpeedConfig, report: Report) -> dict[str, Any]:
    """Rounds of ml-irl beside GAIL with SAC in `imitation`."""
    from control import tuned
    from envs.robots.table import robot
    from experiments.peers.contest import Contender, contest, ratio
    from unified_irl.methods import method

    one, speed = robot(config.loop_robot), tuned.pace(config.loop_robot)
    phase = tuned.row(config.loop_robot, method("ml-irl")).stages[0]
    report(f"the whole loop on {config.loop_robot}: ml-irl, and GAIL with SAC in imitation (on version 4 of the task)")
    both = {"learning_starts": config.learning_starts, "warm_up": config.warm_up}
    gail = both | {"task": one.id.replace("-v5", "-v4"), "can_fall": one.can_fall, "beta": speed.beta}
    rounds = {"round": phase.policy_updates, "reward_steps": phase.reward_steps, "demo_batch": 512}
    contenders = [
        Contender(name="ml-irl", script="ml_irl.py", options=both | {"robot": config.loop_robot}),
        *(
            Contender(name=name, script="imitation_gail.py", options=gail | extra, python=config.imitation_python)
            for name, extra in (
                ("GAIL as it comes", {"round": 0, "reward_steps": 0, "demo_batch": 256}),
                ("GAIL in our rounds", rounds),
            )
        ),
    ]
    raced = contest(contenders, threads=config.threads, seconds=config.seconds, blocks=config.blocks, report=report)
    theirs = [contender.name for contender in contenders[1:]]
    ratios = {name: ratio(raced["ml-irl"], raced[name]) for name in theirs}
    for name in raced:
        _say(name, raced[name], None, "", report)
    for name, times in ratios.items():
        report(f"ml-irl makes {_shown(times)} times as many steps per second as {name}")
    return {"contenders": raced, "ratios": ratios}


def _say(name: str, result: dict[str, Any], times: dict[str, float] | None, whom: str, report: Report) -> None:
    compared = "" if times is None else f", {_shown(times)} times {whom}"
    report(
        f"{name}: {result['steps_per_second']:.0f} steps per second on {result['threads']} threads, "
        f"peak {result['peak_mib']:.0f} MiB{compared}"
    )


def _shown(times: dict[str, float]) -> str:
    return f"{times['estimate']:.2f} [{times['low']:.2f}, {times['high']:.2f}]"


def run(config: BenchControlSpeedConfig, report: Report) -> dict[str, Any]:
    import torch

    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device is cuda, but no CUDA device can be used; leave it at cpu.")
    if config.imitation_python:
        _check_imitation(config.imitation_python)
    result = {"sac": sac_part(config, report)}
    if config.imitation_python:
        result["loop"] = loop_part(config, report)
    else:
        report(f"The whole loop is left out. {HOW_TO_MAKE}")
    return result


def _check_imitation(python: str) -> None:
    """Better now than after minutes."""
    asked = [python, "-c", "from importlib.metadata import version; version('imitation')"]
    try:
        subprocess.run(asked, check=True, capture_output=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"{python} is no Python that knows imitation. {HOW_TO_MAKE}") from error
