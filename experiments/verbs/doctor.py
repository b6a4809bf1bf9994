"""doctor: is everything in place? Versions, devices, shadowed names, writable places, one tiny run from end to end."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from experiments import command

PACKAGES = ("unified_irl", "envs", "llm", "control", "experiments")
DISTRIBUTION = "unified-irl"
LIBRARIES = ("torch", "numpy", "scipy", "gymnasium", "mujoco", "stable-baselines3", "transformers", "datasets", "tyro",
             "wandb", "safetensors", "pydantic")  # fmt: skip
Finding = tuple[bool, str]


def versions() -> Iterator[Finding]:
    yield True, f"Python {platform.python_version()} on {platform.platform()}"
    for name in LIBRARIES:
        try:
            yield True, f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            yield False, f"{name} is not installed. Run: pip install --constraint constraints.txt --editable ."


def devices() -> Iterator[Finding]:
    import torch

    yield True, f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads unless a run says otherwise"
    if torch.cuda.is_available():
        yield True, f"CUDA {torch.version.cuda}: {torch.cuda.get_device_name()}"
    else:
        yield True, "no CUDA device: everything runs on the CPU"


def names() -> Iterator[Finding]:
    """Our package names are common words; another distribution may have put its own package before ours."""
    home = Path(__file__).resolve().parents[2]
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        found = Path(spec.origin).resolve() if spec and spec.origin else None
        if found is not None and found.is_relative_to(home):
            yield True, f"'{package}' is ours"
            continue
        owners = importlib.metadata.packages_distributions().get(package, [])
        others = ", ".join(name for name in owners if name != DISTRIBUTION) or "something on the path"
        yield (
            False,
            (
                f"'import {package}' finds {found}, which belongs to {others} and shadows ours. "
                "Install unified-irl in an environment of its own."
            ),
        )


def caches() -> Iterator[Finding]:
    hub = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    for what, place in (
        ("working directory", Path.cwd()),
        ("temporary directory", Path(tempfile.gettempdir())),
        ("model and data cache", hub),
    ):
        try:
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place) as file:
                file.write(b"x" * 4096)
            yield True, f"{what} {place} is writable"
        except OSError as error:
            yield False, f"{what} {place} is not writable: {error.strerror}. Mend that, or choose another."


def tiny_run() -> Iterator[Finding]:
    """Train, save, load and examine the smallest useful thing."""
    from dataclasses import replace

    from experiments.train import default_config, load, train
    from unified_irl.run import evaluate

    config = default_config("walks", "aihf")
    config = replace(
        config,
        task=replace(config.task, num_nodes=8, horizon=6, num_demonstrations=32),
        method=config.method.with_phases(rounds=30),
        tracking=replace(config.tracking, progress="quiet"),
    )
    with tempfile.TemporaryDirectory() as place:
        result = train("walks", config, Path(place) / "run", ["doctor"])
        _, _, learner = load(Path(place) / "run")
        again = evaluate(learner)
    yield again == result["final"], "a run saved and loaded again is examined with identical results"
    learnt = result["final"]["score"] > 0.5
    yield learnt, f"aihf on a walks world of 8 nodes: score {result['final']['score']:.3f} (0 start, 1 expert)"


CHECKS: dict[str, Callable[[], Iterator[Finding]]] = {
    "versions": versions,
    "devices": devices,
    "package names": names,
    "places": caches,
    "end to end": tiny_run,
}


def main(arguments: list[str]) -> int:
    command.refuse(arguments, "doctor")
    sound = True
    for title, check in CHECKS.items():
        print(f"{title}:")
        for fine, sentence in check():
            print(f"  {'ok  ' if fine else 'FAIL'}  {sentence}")
            sound = sound and fine
    print("all is well" if sound else "something is wrong: see the lines that begin with FAIL")
    return 0 if sound else 1
