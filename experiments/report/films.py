"""Small films of robots, made once and kept beside their cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.core import RenderFrame

from control.video import Act, Recording, record
from envs.robots.simulators import make
from experiments.robot_runs import load_robot_run

FILE = "report-film.mp4"
SIZE = 200
"""Pixels of a side; encoders want an even number."""
FRAMES_PER_SECOND = 25
SECONDS = 4


class _Small(gymnasium.Wrapper[np.ndarray, np.ndarray, np.ndarray, np.ndarray]):
    """Frames of few pixels, and no more of them than a film shows: between two frames the policy goes on acting."""

    def __init__(self, env: gymnasium.Env[np.ndarray, np.ndarray], act: Act) -> None:
        super().__init__(env)
        self.act = act
        rate = env.metadata.get("render_fps", FRAMES_PER_SECOND)
        self.stride = max(1, round(rate / FRAMES_PER_SECOND))
        self.metadata = env.metadata | {"render_fps": max(1, round(rate / self.stride))}
        if renderer := getattr(env.unwrapped, "mujoco_renderer", None):
            renderer.width = renderer.height = SIZE
            quality = renderer.model.vis.quality  # shadows cost most where no graphics card draws them
            quality.shadowsize, quality.offsamples = 512, 0

    def step(self, action: np.ndarray) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        came = self.env.step(action)
        for _ in range(self.stride - 1):
            if came[2] or came[3]:
                break
            came = self.env.step(self.act(came[0]))
        return came

    def render(self) -> RenderFrame | list[RenderFrame] | None:
        frame = self.env.render()
        if not isinstance(frame, np.ndarray) or frame.shape[0] <= SIZE:
            return frame
        from PIL import Image

        width = SIZE * frame.shape[1] // frame.shape[0] // 2 * 2
        return np.asarray(Image.fromarray(frame).resize((width, SIZE)))  # type: ignore[return-value]


def film(cell: Path) -> Recording:
    """The film of a finished run, which is made where it is missing. What is half made is never seen."""
    path = cell / FILE
    if path.is_file():
        return Recording(path=path)
    learnt = load_robot_run(cell, "latest", "Nothing moves there that could be filmed.")
    choose, never_ends = learnt.policy.acting(None), learnt.config.task.ends == "fixed horizon"

    def act(observation: np.ndarray) -> np.ndarray:
        return choose(np.asarray(observation, np.float32)[None])[0]

    def build() -> gymnasium.Env[np.ndarray, np.ndarray]:
        return _Small(make(learnt.robot, render_mode="rgb_array", never_ends=never_ends), act)

    return record(build, act, path, max_steps=SECONDS * FRAMES_PER_SECOND)
