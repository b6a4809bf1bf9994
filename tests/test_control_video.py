"""Films of policies: they play, they move, and where none can be made a sentence says why."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import gymnasium
import imageio.v3 as iio
import numpy as np
import pytest

from control.video import record
from unified_irl.errors import UserError

with_moviepy = pytest.mark.skipif(importlib.util.find_spec("moviepy") is None, reason="needs moviepy (extra 'video')")

FILM_IN_A_PROCESS = """
import os, sys
from pathlib import Path
import numpy as np
from control.video import record
made = record("Hopper-v5", lambda seen: np.zeros(3, np.float32), Path(sys.argv[1]), max_steps=5)
print(made.path, made.reason, sep="|")
print("MUJOCO_GL" in os.environ)
import mujoco
"""
NO_EGL = {"__EGL_VENDOR_LIBRARY_DIRS": "/nonexistent", "__EGL_VENDOR_LIBRARY_FILENAMES": ""}


class Random:
    """Any actions of a task; counts how often it is asked."""

    def __init__(self, task: str) -> None:
        self.space = gymnasium.make(task).action_space
        self.space.seed(0)
        self.num_asked = 0

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        assert observation.ndim == 1
        self.num_asked += 1
        return self.space.sample()


def film_in_a_process(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """As a user without a screen would; every warning is shown."""
    kept = {
        name: value for name, value in os.environ.items() if name not in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY")
    }
    return subprocess.run(
        [sys.executable, "-W", "always::UserWarning", "-c", FILM_IN_A_PROCESS, str(folder / "film.mp4")],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def frames_of(path: Path, num_recorded: int) -> np.ndarray:
    """int16[frames, height, width, 3]. The encoder counts in seconds and may round to one frame more or less."""
    frames = iio.imread(path, plugin="FFMPEG")
    assert abs(len(frames) - num_recorded) <= 1
    return frames[:num_recorded].astype(np.int16)


@with_moviepy
@pytest.mark.parametrize(("task", "package"), [("Hopper-v5", "mujoco"), ("Pendulum-v1", "pygame")])
def test_a_film_plays(task: str, package: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Frames of the first state and of what came of each action; neighbours differ, and nothing is black.

    Hopper on EGL; Pendulum draws with pygame, which is not among the dependencies: without it there is a sentence.
    """
    policy, path = Random(task), tmp_path / "films" / "one.mp4"
    made = record(task, policy, path, max_steps=30)
    written = capfd.readouterr()
    assert (written.out, written.err) == ("", "")
    if importlib.util.find_spec(package) is None:
        assert made.path is None
        assert made.reason.startswith("No video: nothing can be drawn here (pygame is not installed")
        assert not list(tmp_path.rglob("*.mp4"))
        return
    assert (made.path, made.reason) == (path, "")
    assert policy.num_asked == 30 or task == "Hopper-v5", "a hopper falls"
    frames = frames_of(path, policy.num_asked + 1)
    assert all(len(np.unique(frame)) > 10 for frame in frames[:, ::8, ::8])
    assert (frames.mean((1, 2, 3)) > 20).all()
    assert all(np.abs(after - before).max() > 20 for before, after in pairwise(frames))
    assert [entry.name for entry in path.parent.iterdir()] == ["one.mp4"]


@with_moviepy
def test_episodes_follow_each_other_in_one_film(tmp_path: Path) -> None:
    """An environment from a builder, three episodes of four steps: five frames each. The seed decides the start."""

    def build() -> gymnasium.Env:
        return gymnasium.make("Reacher-v5", render_mode="rgb_array")

    films = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        still = record(build, lambda _: np.zeros(2, np.float32), tmp_path / f"{name}.mp4", 3, seed, max_steps=4)
        assert still.path is not None, still.reason
        films.append(frames_of(still.path, 15))
    assert np.array_equal(films[0], films[1])
    assert np.abs(films[0][0] - films[2][0]).max() > 50
    assert np.abs(films[0][4] - films[0][5]).max() > 50, "a second episode starts elsewhere"


@with_moviepy
def test_a_process_without_a_screen_films_without_a_word(tmp_path: Path) -> None:
    done = film_in_a_process(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"{tmp_path / 'film.mp4'}|", "False"]


@with_moviepy
def test_an_unknown_renderer_is_a_sentence(tmp_path: Path) -> None:
    """The import of MuJoCo in the last line of the process fails by itself; what counts came before it."""
    done = film_in_a_process(tmp_path, MUJOCO_GL="invalid")
    sentence, kept = done.stdout.splitlines()
    assert sentence.startswith("None|No video: ")
    assert sentence.endswith("MUJOCO_GL: invalid).")
    assert kept == "True", "what the user chose stays as it is"
    assert "video.py" not in done.stderr
    assert not list(tmp_path.iterdir())


@with_moviepy
@pytest.mark.skipif(sys.platform != "linux", reason="EGL is chosen on Linux only")
def test_a_machine_without_egl_still_simulates_afterwards(tmp_path: Path) -> None:
    done = film_in_a_process(tmp_path, **NO_EGL)
    assert done.stdout.splitlines()[0].startswith("None|No video: ")
    assert (done.returncode, done.stderr) == (0, "")
    assert not list(tmp_path.iterdir())


def test_without_an_encoder_there_is_a_sentence(tmp_path: Path) -> None:
    """Python finds no package called moviepy when the name is blocked in the module table."""
    blocked = "import sys; sys.modules['moviepy'] = None\n" + FILM_IN_A_PROCESS
    done = subprocess.run(
        [sys.executable, "-c", blocked, str(tmp_path / "film.mp4")], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.splitlines()[0].startswith("None|No video: moviepy is not installed;")
    assert done.stderr == ""


@with_moviepy
def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    made = record("Hopper-v5", Random("Hopper-v5"), tmp_path / "file" / "film.mp4", max_steps=2)
    assert made.path is None
    assert made.reason.startswith("No video: the file cannot be written")


@with_moviepy
def test_mistakes_of_the_caller_are_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no environment 'Hoper-v5'"):
        record("Hoper-v5", Random("Hopper-v5"), tmp_path / "film.mp4")
    with pytest.raises(UserError, match="0 episodes of at most 5 steps"):
        record("Hopper-v5", Random("Hopper-v5"), tmp_path / "film.mp4", num_episodes=0, max_steps=5)

    def broken(observation: np.ndarray) -> np.ndarray:
        raise ArithmeticError("a policy gone wrong")

    with pytest.raises(ArithmeticError, match="gone wrong"):
        record("Hopper-v5", broken, tmp_path / "film.mp4")
    assert not list(tmp_path.iterdir())
