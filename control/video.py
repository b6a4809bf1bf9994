"""Films of policies and of what was recorded of them, without a screen.

Which library MuJoCo draws with is read from the environment variable `MUJOCO_GL`: by MuJoCo when it is imported, by
Gymnasium when its renderer opens. Where it is unset and there is no display, it is "egl" while a film is made, and
unset again afterwards, so that a machine without EGL can still simulate. It has to be set before the renderer of MuJoCo
is imported: a process that has already drawn with another library keeps that one.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unified_irl.errors import UserError

if TYPE_CHECKING:
    from gymnasium import Env
    from gymnasium.wrappers import RecordVideo

    Builder = Callable[[], Env[np.ndarray, np.ndarray]]
    """Builds an environment whose `render_mode` is "rgb_array"."""

MISSING = 'No video: moviepy is not installed; pip install "unified-irl[video]" brings it.'
Act = Callable[[np.ndarray], np.ndarray]
"""One observation [O] to one action [A], in the units of the environment."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A film, or why there is none."""

    path: Path | None
    reason: str = ""
    """One sentence for whoever asked; empty where there is a film."""


class _Unfilmable(UserError):
    """What stands in the way of a film; it leaves this module as a reason only."""


def record(
    task: str | Builder, act: Act, path: Path, num_episodes: int = 1, seed: int = 0, max_steps: int = 1000
) -> Recording:
    """An mp4 of the policy's episodes one after another, each at most `max_steps` long.

    The first episode starts from `seed`. All frames are held until the film is written (0.7 MB each at MuJoCo's
    480 × 480). A film that cannot be made is no reason to stop a run, so this hands back a reason and raises only for
    an unknown task, for numbers that make no sense, and whatever `act` raises.
    """
    if num_episodes < 1 or max_steps < 1:
        raise UserError(
            f"video: {num_episodes} episodes of at most {max_steps} steps were asked for; expected 1 or more of each."
        )
    if importlib.util.find_spec("moviepy") is None:
        return Recording(path=None, reason=MISSING)
    with _headless(), _quietly():
        try:
            _write(task, act, path, num_episodes, seed, max_steps)
        except _Unfilmable as fault:
            return Recording(path=None, reason=str(fault))
    return Recording(path=path)


def film(frames: Iterable[np.ndarray], path: Path, frames_per_second: float) -> Recording:
    """An mp4 of frames that are drawn while it is made, at most as many as memory holds; or why there is none."""
    if importlib.util.find_spec("moviepy") is None:
        return Recording(path=None, reason=MISSING)
    with _headless(), _quietly():
        try:
            with _said("nothing can be drawn here"):
                drawn = list(frames)
            with _said("the film cannot be written"):
                _encode(drawn, path, frames_per_second)
        except _Unfilmable as fault:
            return Recording(path=None, reason=str(fault))
    return Recording(path=path)


def _encode(frames: list[np.ndarray], path: Path, frames_per_second: float) -> None:
    """Its index comes first, so that a browser can play it while it arrives."""
    from moviepy.video.io.ImageSequenceClip import ImageSequenceClip

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".film-") as folder:
        part = Path(folder) / "film.mp4"
        clip = ImageSequenceClip(frames, fps=frames_per_second)
        try:
            clip.write_videofile(str(part), logger=None, ffmpeg_params=["-movflags", "+faststart"])
        finally:
            clip.close()
        part.replace(path)


def _write(task: str | Builder, act: Act, path: Path, num_episodes: int, seed: int, max_steps: int) -> None:
    """The film appears at `path` when it is whole."""
    with _said("the file cannot be written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=path.parent, prefix=".video-")
    with folder:
        # A folder that does not exist yet: RecordVideo warns of overwriting otherwise.
        inside = Path(folder.name) / "film"
        film = _opened(task, inside, num_episodes * (max_steps + 1))
        try:
            for episode in range(num_episodes):
                _act_out(film, act, seed if episode == 0 else None, max_steps)
        except BaseException:
            film.recorded_frames = []
            film.close()
            raise
        with _said("the film cannot be written"):
            film.close()
            next(inside.glob("*.mp4")).replace(path)


def _opened(task: str | Builder, folder: Path, num_frames: int) -> RecordVideo[np.ndarray, np.ndarray]:
    """The environment behind a camera that runs from the first reset on, through all episodes."""
    with _said("the environment cannot be built"):
        import gymnasium
        from gymnasium.wrappers import RecordVideo

        try:
            env = gymnasium.make(task, render_mode="rgb_array") if isinstance(task, str) else task()
        except gymnasium.error.UnregisteredEnv as error:
            unknown = UserError(f"video: Gymnasium knows no environment '{task}'; expected an id such as 'Hopper-v5'.")
            raise unknown from error
        return RecordVideo(env, str(folder), episode_trigger=lambda episode: episode == 0, video_length=num_frames)


def _act_out(film: RecordVideo[np.ndarray, np.ndarray], act: Act, seed: int | None, max_steps: int) -> None:
    with _said("nothing can be drawn here"):
        observation, _ = film.reset(seed=seed)
    for _ in range(max_steps):
        action = act(observation)
        with _said("nothing can be drawn here"):
            observation, _, terminated, truncated, _ = film.step(action)
        if terminated or truncated:
            return


@contextmanager
def _said(what: str) -> Iterator[None]:
    """Turn whatever a simulator, a graphics library or an encoder throws into one sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines()
        detail = lines[0].rstrip(". ") if lines else type(error).__name__
        raise _Unfilmable(f"No video: {what} ({detail}).") from None


@contextmanager
def _headless() -> Iterator[None]:
    """Draw without a screen where there is none, unless somebody has chosen how to draw."""
    if sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        yield
        return
    ours = {
        name: value for name, value in (("MUJOCO_GL", "egl"), ("SDL_VIDEODRIVER", "dummy")) if name not in os.environ
    }
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


@contextmanager
def _quietly() -> Iterator[None]:
    """No warnings, and no complaints of half-built renderers when they are thrown away."""
    hook = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        gc.collect()
        sys.unraisablehook = hook
