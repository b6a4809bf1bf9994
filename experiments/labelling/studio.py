"""Films of segments, made one after another by one thread, ahead of whoever looks at them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from control.video import film
from envs.robots.episodes import Episode
from envs.robots.simulators import Simulator
from unified_irl.errors import UserError

LEAST_SECONDS = 2.5
"""A segment lasts at least so long on the page: at a robot's own pace, fifty steps may be over in half a second."""
MOST_FRAMES_PER_SECOND = 30.0
MOST_FRAMES = 31
"""Of a film; of longer segments not every state is drawn. Without a GPU drawing takes longer than looking."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Some steps of an episode."""

    episode: int
    start: int
    length: int
    """Steps; there may be fewer where the episode ends."""


class Studio:
    """What draws belongs to the thread that it was made in; so there is one thread."""

    def __init__(self, folder: Path, robot: str, episodes: Sequence[Episode], *, never_ends: bool) -> None:
        self.folder, self.robot, self.episodes, self.never_ends = folder, robot, episodes, never_ends
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="films")
        self._ordered: dict[Segment, Future[Path]] = {}
        self._simulator: Simulator | None = None

    def order(self, segment: Segment) -> Future[Path]:
        """The film of a segment, now or later; what failed is tried again when it is next ordered."""
        earlier = self._ordered.get(segment)
        if earlier is None or (earlier.done() and (earlier.cancelled() or earlier.exception() is not None)):
            self._ordered[segment] = earlier = self._worker.submit(self._made, segment)
        return earlier

    def close(self) -> None:
        for one in self._ordered.values():
            one.cancel()
        self._worker.submit(self._put_away)
        self._worker.shutdown()

    def _put_away(self) -> None:
        if self._simulator is not None:
            self._simulator.close()

    def _made(self, segment: Segment) -> Path:
        path = self.folder / f"{segment.episode}-{segment.start}-{segment.length}.mp4"
        if path.is_file():
            return path
        made = film(self._frames(segment), path, self._frames_per_second(segment))
        if made.path is None:
            raise UserError(
                f"{made.reason} Segments are compared by looking at them: label on a machine that can draw (MuJoCo "
                "needs EGL or OSMesa without a screen; MUJOCO_GL says which)."
            )
        return made.path

    def _frames_per_second(self, segment: Segment) -> float:
        return min(MOST_FRAMES_PER_SECOND, len(self._steps(segment)) / LEAST_SECONDS)

    def _steps(self, segment: Segment) -> range:
        """The states that are drawn: the first, and what came of steps evenly over the segment."""
        num_steps = min(segment.length, len(self.episodes[segment.episode]) - segment.start)
        stride = math.ceil(num_steps / (MOST_FRAMES - 1))
        return range(segment.start, segment.start + num_steps + 1, stride)

    def _frames(self, segment: Segment) -> Iterator[np.ndarray]:
        self._simulator = self._simulator or Simulator(self.robot, render_mode="rgb_array", never_ends=self.never_ends)
        steps, episode = self._steps(segment), self.episodes[segment.episode]
        draw = self._remembered if episode.physics is not None else self._replayed
        return draw(self._simulator, episode, steps)

    def _remembered(self, simulator: Simulator, episode: Episode, steps: range) -> Iterator[np.ndarray]:
        """The states that were written down, one after another."""
        assert episode.physics is not None
        for step in steps:
            simulator.reset_to(episode.physics[step], seed=0)
            yield _drawn(simulator)

    def _replayed(self, simulator: Simulator, episode: Episode, steps: range) -> Iterator[np.ndarray]:
        """The episode over again from its seed, by the actions that were written down."""
        assert episode.seed is not None
        simulator.reset(episode.seed)
        for step in range(steps.stop):
            if step:
                simulator.step(episode.actions[step - 1])
            if step in steps:
                yield _drawn(simulator)


def _drawn(simulator: Simulator) -> np.ndarray:
    frame = simulator.env.render()
    if not isinstance(frame, np.ndarray):
        raise UserError(f"robot '{simulator.name}' draws nothing (render_mode rgb_array); it can be compared by none.")
    return frame
