"""The tasks by name, each with its config, its defaults for every method, and how its domain is built.

No tensor library here: domains are imported when they are built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from control import tuned
from control.config import ControlConfig
from envs.robots.table import ANY, ROBOTS, robot
from envs.walks.config import WalksConfig
from llm import papers
from llm import table as language
from llm import tuned as language_tuned
from llm.config import LanguageConfig
from unified_irl.descent_config import DescentConfig
from unified_irl.errors import UserError, unknown_name
from unified_irl.methods import Method
from unified_irl.run_config import RunConfig

if TYPE_CHECKING:
    from unified_irl.contracts import Domain


@dataclass(frozen=True, kw_only=True)
class Task:
    """One row of the table of tasks."""

    summary: str
    config: type
    """The frozen dataclass of its settings."""
    settings: Callable[[], Any]
    """The settings it starts from."""
    tuned: Callable[[Method], Method]
    """The row with the step sizes and lengths that suit this task."""
    build: Callable[[Any, int], Domain]
    """From settings and a seed to a domain."""
    climbs: str
    """How a policy climbs an explicit reward here, in a word."""
    run: Callable[[Method], RunConfig] = lambda _: RunConfig()
    """How runs of a tuned row are kept."""
    is_long: bool = False
    """Whether a run is long enough to be told first what it will need."""
    shares_work: bool = False
    """Whether several processes can work on one run."""
    shorthands: Mapping[str, str] = field(default_factory=dict)
    """Short flags, and the flags that they stand for."""
    note: Callable[[Method], str] = lambda _: ""
    """What a user should know of a method on this task, in a sentence; empty where there is nothing."""

    def spelt_out(self, arguments: list[str]) -> list[str]:
        """Arguments with every shorthand replaced by the flag it stands for."""
        parts = [word.partition("=") for word in arguments]
        return [self.shorthands.get(name, name) + equals + value for name, equals, value in parts]


def _walks_domain(config: WalksConfig, seed: int) -> Domain:
    from envs.walks.domain import WalksDomain

    return WalksDomain(config, seed)


def _walks_tuned(row: Method) -> Method:
    """A free table, the policy where there is a reward beside it, needs larger steps than a network.

    The labeller is taken to be as sharp as the default one is.
    """
    sharpness = WalksConfig().labeller.rationality
    return replace(
        row.with_phases(preference_sharpness=sharpness),
        policy_descent=DescentConfig(learning_rate=0.05 if row.reward == "explicit" and row.init == "base" else 0.02),
        reward_descent=DescentConfig(learning_rate=0.02),
    )


def _robot_domain(name: str, config: ControlConfig, seed: int) -> Domain:
    from control.domain import ControlDomain

    if config.robot != name:
        raise UserError(f"task.robot is {config.robot}, but the task is {name}; name the robot as the task instead.")
    return ControlDomain(config, seed)


def _robot(name: str) -> Task:
    return Task(
        summary=robot(name).summary,
        config=ControlConfig,
        settings=partial(tuned.settings, name),
        tuned=partial(tuned.row, name),
        build=partial(_robot_domain, name),
        climbs="SAC",
        run=partial(tuned.run_settings, name),
        note=tuned.note,
    )


def _language_domain(config: LanguageConfig, seed: int) -> Domain:
    return language.build(config, seed)


def _language(name: str) -> Task:
    return Task(
        summary=language.SUMMARIES[name],
        config=language.TASKS[name],
        settings=partial(language_tuned.settings, name),
        tuned=partial(language_tuned.row, name),
        build=_language_domain,
        climbs=LanguageConfig().improve.algorithm.upper(),
        shares_work=True,
        note=language_tuned.note,
    )


def _written_domain(config: language.WrittenTask, seed: int) -> Domain:
    from llm.written import WrittenDomain

    return WrittenDomain(config, seed)


def _written(
    summary: str, settings: Callable[[], Any], tuned_: Callable[[Method], Method], *, is_long: bool = False
) -> Task:
    return Task(
        summary=summary,
        config=language.WrittenTask,
        settings=settings,
        tuned=tuned_,
        build=_written_domain,
        is_long=is_long,
        climbs=LanguageConfig().improve.algorithm.upper(),
        shares_work=True,
        note=language_tuned.note,
        shorthands={
            "--model": "--task.model.path",
            "--demonstrations": "--task.data.demonstrations.files",
            "--preferences": "--task.data.preferences.files",
            "--prompts": "--task.data.prompts.files",
        },
    )


TASKS: dict[str, Task] = {
    "walks": Task(
        summary="walks on a small graph to a goal past tolls; every answer is known exactly",
        config=WalksConfig,
        settings=WalksConfig,
        tuned=_walks_tuned,
        build=_walks_domain,
        climbs="exact",
    ),
    **{name: _language(name) for name in language.TASKS},
    "hf": _written(
        "a model of transformers, and what people wrote: files and datasets of answers and comparisons",
        language.WrittenTask,
        language_tuned.written_row,
    ),
    **{
        name: _written(paper.summary, partial(papers.settings, name), partial(papers.row, name), is_long=True)
        for name, paper in papers.PAPERS.items()
    },
    **{name: _robot(name) for name in ROBOTS},
}


def task(name: str) -> Task:
    """The task of that name, any Gymnasium environment as gym:ID, or an error that suggests the nearest."""
    if name.startswith(ANY):
        return _robot(name)
    if name not in TASKS:
        raise unknown_name("task", name, TASKS)
    return TASKS[name]
