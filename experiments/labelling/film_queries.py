"""Where segments of episodes come from: a task's own policies, a run's policy, or a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from torch import Generator

from control.domain import ControlDomain
from control.files.demonstrations import episodes_of, read_demonstrations
from control.policy import ControlPolicy
from control.poses import physics_of
from envs.robots import people
from envs.robots.config import PeopleConfig
from envs.robots.episodes import Episode, trajectories
from envs.robots.rollout import roll_out
from envs.robots.simulators import Simulator
from experiments.labelling.config import LabelFlags
from experiments.labelling.films import Films, keep
from experiments.labelling.folder import Made, Query
from experiments.labelling.studio import Segment
from experiments.robot_runs import alone, load_robot_run
from experiments.tasks import task
from unified_irl.errors import UserError
from unified_irl.feed import stream

UNDRAWN = "its episodes cannot be drawn; compare segments of a task or of a run instead, which keep that."
ATTEMPTS = 20
"""Times that pairs are drawn again that would show one segment twice."""


def of_task(domain: ControlDomain, flags: LabelFlags, folder: Path) -> Made:
    """Segments of the episodes that the task's settings compare."""
    config, draw = domain.config.people, stream(domain.data_seed, "preferences")
    episodes = people.compared_episodes(domain.experts, domain.helpers, config, draw, with_physics=True)
    return _made(folder, domain, [episodes], flags, config.segment_length)


def of_run(path: Path, flags: LabelFlags, folder: Path) -> Made:
    """Segments of what the policy does, or one of that and one of what it did before it learnt."""
    learnt = load_robot_run(path, flags.which, "Nothing moves there that could be compared.")
    draw = stream(flags.seed, "label", "episodes")
    makers = [learnt.policy]
    if flags.against == "start":
        start = ControlDomain(alone(learnt.config.task), learnt.config.seed).build(learnt.config.method).policy
        assert isinstance(start, ControlPolicy)
        makers.append(start)
    episodes = [
        roll_out(one.acting(draw), learnt.domain.helpers, flags.episodes, draw, with_physics=True) for one in makers
    ]
    return _made(folder, learnt.domain, episodes, flags, learnt.config.task.people.segment_length)


def of_file(source: str, flags: LabelFlags, folder: Path) -> Made:
    """Segments of recorded episodes, drawn as the observations say that the robot stood."""
    if not flags.robot:
        raise UserError(f"{source} does not say of which robot its episodes are; name its task with --robot.")
    domain = ControlDomain(alone(task(flags.robot).settings()), flags.seed)
    recorded = episodes_of(read_demonstrations(source, spaces=domain.spaces).trajectories, source)
    simulator = Simulator(flags.robot)
    episodes = [replace(one, physics=physics_of(simulator, one.observations, UNDRAWN)) for one in recorded]
    return _made(folder, domain, [episodes], flags, PeopleConfig().segment_length)


def _made(
    folder: Path, domain: ControlDomain, episodes: Sequence[list[Episode]], flags: LabelFlags, segment_length: int
) -> Made:
    """The queries; one film is made at once, since nobody can compare what cannot be drawn."""
    if flags.mode == "demonstrate":
        raise UserError("Nobody can type what a robot should do; --mode demonstrate is for language.")
    everything = [one for some in episodes for one in some]
    keep(folder, everything)
    draw = stream(flags.seed, "label", "pairs")
    queries = _pairs(episodes, flags.count, flags.segment_length or segment_length, draw)
    facts = {"robot": domain.config.robot, "never_ends": domain.config.ends == "fixed horizon"}
    made = Made(kind="films", facts=facts, queries=queries)
    films = Films(folder, made)
    try:
        films.film(0, 0)
    finally:
        films.close()
    return made


def _pairs(episodes: Sequence[list[Episode]], count: int, length: int, draw: Generator) -> list[Query]:
    """Pairs of windows, the second from the last of the sets of episodes."""
    longest = min(max(map(len, some)) for some in episodes)
    length, pairs = min(length, longest), []
    for _ in range(ATTEMPTS):
        if not (missing := count - len(pairs)):
            break
        sides = [_windows(some, missing, length, draw) for some in (episodes[0], episodes[-1])]
        if len(episodes) > 1:
            sides[1] = [replace(one, episode=one.episode + len(episodes[0])) for one in sides[1]]
        pairs += [(first, second) for first, second in zip(*sides, strict=True) if first != second]
    if not pairs:
        raise UserError(
            f"These episodes hold only one segment of {length} steps, which cannot be compared with itself; give "
            "shorter segments (--segment-length) or more episodes."
        )
    return [{"first": asdict(first), "second": asdict(second)} for first, second in pairs]


def _windows(episodes: list[Episode], count: int, length: int, draw: Generator) -> list[Segment]:
    rows, starts = people.places(trajectories(episodes), count, length, draw)
    return [
        Segment(episode=row, start=start, length=length)
        for row, start in zip(rows.tolist(), starts.tolist(), strict=True)
    ]
