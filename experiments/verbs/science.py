"""science NAME [flags]: the claims of the theory, measured in the exact world."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from experiments import command
from experiments.science.configs import ConvergenceConfig, FixedPointsConfig, GradientConfig, SamplesConfig
from experiments.science.joint_config import JointConfig
from unified_irl.errors import UserError, unknown_name

Config = TypeVar("Config")

CLAIMS: dict[str, tuple[str, type]] = {
    "gradient": ("sampled gradients of the demonstration term approach the exact one as 1/√samples", GradientConfig),
    "convergence": ("the single loop's squared gradient norm falls with the number of rounds", ConvergenceConfig),
    "samples": ("the policy's error falls with the number of demonstrations", SamplesConfig),
    "joint": ("learning from both kinds of feedback at once against one, or one after the other", JointConfig),
    "fixed_points": ("what each link converges to", FixedPointsConfig),
}


@dataclass(frozen=True, kw_only=True)
class Flags(Generic[Config]):
    """What to measure, and where the result goes."""

    settings: Config
    """The sweep."""
    results: str = "runs/science"
    """Folder of the result (NAME.json) and its figure (NAME.png)."""
    redraw: bool = False
    """Only draw the figure anew, from the stored result."""


def main(arguments: list[str]) -> None:
    (name,), rest = command.split_words(arguments, ("name",), "science")
    if name == "all":
        for one in CLAIMS:
            main([one, *rest])
        return
    name = name.replace("-", "_")
    if name not in CLAIMS:
        raise unknown_name("claim", name, [*CLAIMS, "all"])
    _, config_type = CLAIMS[name]
    flags: Flags[Any] = command.flags(
        Flags[config_type],  # type: ignore[valid-type]
        rest,
        f"science {name}",
        Flags(settings=config_type()),
    )
    _measure(name, flags)


def _measure(name: str, flags: Flags[Any]) -> None:
    from experiments.show import table
    from experiments.summary import origin, origin_of
    from unified_irl.environment import describe_environment
    from unified_irl.serialise import read_json, to_json, write_json

    module = importlib.import_module(f"experiments.science.{name}")
    folder = Path(flags.results)
    path, figure = folder / f"{name}.json", folder / f"{name}.png"
    if flags.redraw and not path.exists():
        raise UserError(f"{path} does not exist, so there is nothing to draw; run the measurement first.")
    if not flags.redraw:
        folder.mkdir(parents=True, exist_ok=True)
        result = module.run(flags.settings, lambda sentence: print(sentence, flush=True))
        environment = origin(describe_environment(command.typed()))
        settings = to_json(flags.settings)
        write_json(path, {"claim": CLAIMS[name][0], "settings": settings, **environment, "result": result})
    stored = read_json(path)
    module.plot(stored["result"], figure)
    headings, lines = module.table(stored["result"])
    table(f"{name}: {stored['claim']}", headings, lines)
    print(f"{stored['command']}; {origin_of(stored)}\nnumbers: {path}\nfigure: {figure}")
