"""Labelling as people do it: in a browser, with films, with kills, and with what is learnt from it."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from commands import Command
from robots import Line

from control.files.demonstrations import read_demonstrations
from control.files.preferences import read_preferences
from envs.robots.rollout import roll_out
from envs.robots.simulators import Simulator
from envs.robots.table import robot
from experiments.labelling import agreement
from experiments.labelling.book import Book
from experiments.labelling.config import LabelFlags, TaskLabelFlags
from experiments.labelling.desk import seated
from experiments.labelling.server import LabelServer
from experiments.labelling.sources import opened
from experiments.labelling.studio import Segment, Studio
from experiments.tasks import task
from experiments.tiny import make
from experiments.train import default_config
from unified_irl.feedback_files import load_demonstrations, load_preferences

torch.set_num_threads(1)
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (extra 'dev')")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a browser called chromium")
with_films = pytest.mark.skipif(importlib.util.find_spec("moviepy") is None, reason="needs moviepy (extra 'video')")
ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
THINGS = ("rivers", "bread", "trains", "maps", "clocks", "stars", "bees", "bridges")
NUM_PAIRS, REPEATS = 182, 0.1
NUM_SHOWN = 200
KEYS = {"left": ("ArrowLeft",), "right": ("ArrowRight",), "tie": ("t", "ArrowUp"), "skip": ("s", "ArrowDown")}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A window whose scripts make no mistake."""
    mistakes: list[str] = []
    window = browser.new_context().new_page()
    window.set_default_timeout(20_000)
    window.on("pageerror", lambda error: mistakes.append(str(error)))
    yield window
    window.context.close()
    assert mistakes == []


@contextmanager
def served(source: str, flags: LabelFlags, place: Path) -> Iterator[LabelServer]:
    """The server of the verb, in a thread of this process."""
    material = opened(source, flags, place)
    desk = seated(Book(place / "answers.jsonl"), material, source, flags)
    with LabelServer(desk, flags.host, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
            material.close()


def shown(page: Any, place: int) -> None:
    """Wait until so many queries are answered."""
    page.wait_for_selector(f'#bar[aria-valuenow="{place}"]', state="attached")


# Two hundred keys and clicks, and a server that is killed.


class Console:
    """The verb in a process of its own, which can be killed."""

    def __init__(self, *words: object) -> None:
        self.words = ["label", *map(str, words)]
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> str:
        """Its address."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "experiments.cli", *self.words], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
        )
        assert self.process.stdout is not None
        while not (line := self.process.stdout.readline()).startswith("label: "):
            assert line, "the server ended"
        return line.split()[1]

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def interrupt(self) -> tuple[int, str]:
        """What Ctrl-C makes of it: exit code and last words."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        said, _ = self.process.communicate(timeout=20)
        return self.process.returncode, said


def write_rows(path: Path) -> None:
    """Good answers name the thing that was asked about; the others speak of another one."""
    rows = []
    for k in range(NUM_PAIRS):
        thing, other = THINGS[k % 8], THINGS[(k + 1 + k // 8 % 7) % 8]
        rows.append(
            {"prompt": f"Q{k}: how do {thing} grow? A:", "chosen": f" {thing} grow.", "rejected": f" {other} grow."}
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def judged(page: Any) -> str:
    """What a rater says who finds bees all alike, has no opinion of maps, and otherwise knows."""
    asked, left = page.evaluate("['#prompt', '#left .body'].map((name) => document.querySelector(name).innerText)")
    thing = asked.split()[3]
    if thing in ("bees", "maps"):
        return "tie" if thing == "bees" else "skip"
    return "left" if left.split()[0] == thing else "right"


@pytest.fixture(scope="module")
def labelled(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of two hundred answers, given through a browser, with two kills on the way."""
    folder = tmp_path_factory.mktemp("labelled")
    write_rows(folder / "rows.jsonl")
    words = (
        folder / "rows.jsonl",
        "--count",
        NUM_PAIRS,
        "--repeats",
        REPEATS,
        "--out",
        folder / "made",
        "--rater",
        "ada",
    )
    console = Console(*words, "--port", "0")
    address = console.start()
    again = Console(*words, "--port", address.rstrip("/").rpartition(":")[2])
    page, other = browser.new_page(), browser.new_page()
    page.goto(address)
    for place in range(NUM_SHOWN):
        shown(page, place)
        said = judged(page)
        if place == 101:  # a second window that shows the same query, and answers it after the first
            other.goto(address)
            shown(other, place)
        if place % 4:
            page.keyboard.press(KEYS[said][place % len(KEYS[said])])
        elif place % 8:
            page.dblclick(f"#say-{said}")
        else:
            page.click(f"#say-{said}")
        if place == 71:  # the answer may have been written, heard, both, or neither
            console.kill()
            console = again
            console.start()
        if place == 101:
            shown(page, 102)
            other.click("#say-tie" if said != "tie" else "#say-skip")
            other.wait_for_selector("#notice:visible")
            assert "answered before" in other.inner_text("#notice")
        if place == 130:
            shown(page, 131)
            console.kill()
            with (folder / "made" / "answers.jsonl").open("a") as file:
                file.write('{"answer": {"rater": "ada", "show')
            assert console.start() == address
            page.reload()
    page.wait_for_selector("#over:visible")
    assert "That was all" in page.inner_text("#over")
    page.close()
    other.close()
    code, said = console.interrupt()
    assert code == 0
    assert f"200 answers in {folder / 'made' / 'answers.jsonl'}" in said
    assert "ada twice on the same pair: the same answer to" in said
    return folder


def test_two_hundred_answers_are_two_hundred_records(labelled: Path) -> None:
    """In the order of the list, each showing once; blind and on both sides; what was asked twice was answered alike."""
    lines = (labelled / "made" / "answers.jsonl").read_text().splitlines()
    given = [json.loads(line)["answer"] for line in lines]
    assert [one["showing"] for one in given] == [f"{place}.0" for place in range(NUM_SHOWN)]
    assert Counter(one["pair"] for one in given).total() == NUM_SHOWN
    assert sum(one["repeat"] for one in given) == NUM_SHOWN - NUM_PAIRS
    assert {one["rater"] for one in given} == {"ada"}
    assert all(0.0 <= one["seconds"] < 60.0 for one in given)
    said = Counter(one["said"] for one in given)
    assert set(said) == {"left", "right", "tie", "skip"}
    assert min(said["left"], said["right"]) > 40
    both = agreement.with_oneself(Book(labelled / "made" / "answers.jsonl").standing, "ada")
    assert len(both) >= 10
    assert all(one == again for one, again in both)


def test_what_was_preferred_is_what_methods_read(labelled: Path) -> None:
    rows = [json.loads(line) for line in (labelled / "made" / "preferences.jsonl").read_text().splitlines()]
    asked = {
        f"Q{k}: how do {THINGS[k % 8]} grow? A:" for k in range(NUM_PAIRS) if THINGS[k % 8] not in ("bees", "maps")
    }
    assert {row["prompt"] for row in rows} == asked
    assert len(rows) == len(asked)
    assert all(row["chosen"].split()[0] == row["prompt"].split()[3] != row["rejected"].split()[0] for row in rows)


def test_a_reward_learns_from_them(labelled: Path, command: Command) -> None:
    make(Path("tiny"), "llama", 40, 0)
    made = labelled / "made" / "preferences.jsonl"
    said = command(
        "train", "hf", "rlhf", "--model", "tiny/model", "--demonstrations", made, "--preferences", made,
        "--task.data.completion-tokens", 8, "--task.num-examined", 16, "--task.reward.level", "sequence",
        "--task.cache", "cache", "--method.warm-start.rounds", 2, "--method.phases.0.rounds", 40,
        "--method.phases.1.rounds", 1, "--method.reward-descent.learning-rate", "3e-3", "--out", "run",
    )  # fmt: skip
    assert said.code == 0, said.err
    metrics = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    losses = [row["held_out_preference_loss"] for row in metrics if "held_out_preference_loss" in row]
    assert losses[0] == pytest.approx(math.log(2.0), abs=0.1), "it knows nothing at first"
    assert losses[-1] < 0.5


# Robots.


@contextmanager
def at(page: Any, source: str, flags: LabelFlags, place: Path) -> Iterator[LabelServer]:
    """The page of this source."""
    with served(source, flags, place) as server:
        page.goto(server.address)
        yield server


def playing(page: Any) -> list[float]:
    """How long both films are, once both move."""
    for side in ("left", "right"):
        page.wait_for_selector(f"#{side} video")
    deadline = 60
    while deadline := deadline - 1:
        films = page.evaluate("[...document.querySelectorAll('video')].map((one) => [one.currentTime, one.duration])")
        if all(time > 0.0 for time, _ in films):
            return [length for _, length in films]
        page.wait_for_timeout(200)
    raise AssertionError("the films do not play")


@with_films
@pytest.mark.slow
def test_robots_are_compared_by_looking(page: Any, command: Command) -> None:
    """Segments of the reacher's three tiers; both films play, of one length; a reward is learnt from what was said."""
    settings = task("reacher").settings()
    people = replace(settings.people, num_compared_episodes=2, segment_length=10)
    flags = TaskLabelFlags(task=replace(settings, people=people), count=4, repeats=0.0, rater="bea")
    place, films = Path("made"), []
    with at(page, "reacher", flags, place) as server:
        for number, key in enumerate(("ArrowLeft", "ArrowRight", "t", "s")):
            shown(page, number)
            films.append(playing(page))
            assert page.inner_text("#question") == f"Which is better at this: {robot('reacher').summary}?"
            page.keyboard.press(key)
        page.wait_for_selector("#over:visible")
        assert server.desk.is_done
    assert all(both == pytest.approx([2.5, 2.5], abs=0.3) for both in films)
    given = Book(place / "answers.jsonl").standing
    episodes = read_demonstrations(place / "episodes.npz").trajectories
    assert len(episodes) == 6
    made = read_preferences(place / "preferences.parquet", episodes)
    assert made.label.tolist() == [one.label for one in given if one.label is not None]
    assert {one.labeller for one in made.makers} == {"bea"}
    tiny = ("--task.sac.hidden", 16, 16, "--task.sac.batch-size", 32, "--task.reward.hidden", 16)
    said = command(
        "train", "reacher", "rlhf", *tiny, "--task.people.preferences-file", place / "preferences.parquet",
        "--task.people.compared-file", place / "episodes.npz", "--task.num-examined", 2,
        "--method.warm-start.rounds", 2, "--method.phases.0.rounds", 3, "--method.phases.1.rounds", 1,
        "--method.phases.1.policy-updates", 5, "--task.sac.learning-starts", 50, "--out", "run",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert math.isfinite(json.loads(Path("run/result.json").read_text())["final"]["score"])


# Words of a named task.

SMALL = (
    "--task.model.size seconds --task.model.layers 1 --task.model.width 16 --task.model.documents 300 "
    "--task.num-examined 4 --task.num-fresh 4"
)


def tiny_flags(cache: Path, **changes: Any) -> TaskLabelFlags[Any]:
    settings = default_config("walks-text", "bc").task
    model = replace(settings.model, size="seconds", layers=1, width=16, documents=300)
    return TaskLabelFlags(task=replace(settings, model=model, cache=str(cache)), repeats=0.0, **changes)


def test_demonstrations_are_typed(page: Any, command: Command) -> None:
    """Words that the task does not have are refused on the page; what was typed survives a reload, and teaches `bc`."""
    flags, place = tiny_flags(Path("cache").absolute(), mode="demonstrate", count=6), Path("made")
    with at(page, "walks-text", flags, place) as server:
        for number in range(5):
            shown(page, number)
            goal, start = page.inner_text("#prompt").split()
            page.fill("#text", f"{start} nowhere")
            if number == 0:
                page.click("#say-written")
                page.wait_for_selector("#notice:visible")
                assert "no word 'nowhere'" in page.inner_text("#notice")
                page.reload()
                shown(page, 0)
                assert page.input_value("#text") == f"{start} nowhere"
            page.fill("#text", "")
            page.click(f"#words button:text-is('{goal.removeprefix('to:')}')")
            page.keyboard.press("Control+Enter") if number == 1 else page.click("#say-written")
        shown(page, 5)
        page.click("#say-skip")
        page.wait_for_selector("#over:visible")
        assert server.desk.is_done
    rows = [json.loads(line) for line in (place / "demonstrations.jsonl").read_text().splitlines()]
    assert [row["completion"] for row in rows] == [f" {row['prompt'].split()[0].removeprefix('to:')}" for row in rows]
    shown_ = load_demonstrations(place / "demonstrations.safetensors")
    assert len(shown_) == len(rows) == 5
    said = command(
        "train", "walks-text", "bc", *SMALL.split(), "--task.cache", "cache", "--task.people.demonstrations-file",
        place / "demonstrations.safetensors", "--method.phases.0.rounds", 4, "--out", "run",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert json.loads(Path("run/result.json").read_text())["final"]["demonstration_nll_rise"] < 0.0


@pytest.mark.slow
def test_completions_of_a_base_model_are_compared(page: Any, command: Command) -> None:
    """With ties, which the task's own format holds; `dpo` learns from them."""
    flags, place = tiny_flags(Path("cache").absolute(), count=5), Path("made")
    with at(page, "walks-text", flags, place):
        for number, key in enumerate(("ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "t")):
            shown(page, number)
            page.keyboard.press(key)
        page.wait_for_selector("#over:visible")
    made = load_preferences(place / "preferences.safetensors")
    given = [one.label for one in Book(place / "answers.jsonl").standing if one.label is not None]
    assert made.label.tolist() == given
    assert sum(one == 0.5 for one in given) == 2
    assert len((place / "preferences.jsonl").read_text().splitlines()) == 2
    said = command(
        "train", "walks-text", "dpo", *SMALL.split(), "--task.cache", "cache", "--task.people.num-demonstrations", 12,
        "--task.people.preferences-file", place / "preferences.safetensors", "--method.warm-start.rounds", 2,
        "--method.phases.0.rounds", 2, "--out", "run",
    )  # fmt: skip
    assert said.code == 0, said.err


# Where no state is known, the episode is acted out again.


class Drawn(Line):
    """A point on a line that draws its place as a grey square."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        self.render_mode = render_mode

    def render(self) -> np.ndarray:
        return np.full((32, 32, 3), 128 + int(20 * np.tanh(self.place[0])), np.uint8)


gymnasium.register(id="DrawnLine-v0", entry_point=Drawn, max_episode_steps=20)


def test_a_replayed_segment_shows_what_happened(tmp_path: Path) -> None:
    """The greys are those of the places that the episode went through, from its 5th state to its 15th, as computed."""
    simulator, draw = Simulator("gym:DrawnLine-v0"), np.random.default_rng(0)
    act = lambda seen: draw.uniform(-2.0, 2.0, (len(seen), 1)).astype(np.float32)  # noqa: E731
    (episode,) = roll_out(act, [simulator], 1, torch.Generator().manual_seed(0), with_physics=True)
    assert episode.physics is None
    studio = Studio(tmp_path, "gym:DrawnLine-v0", [episode], never_ends=False)
    frames = list(studio._frames(Segment(episode=0, start=5, length=10)))
    studio.close()
    greys = [128 + int(20 * np.tanh(place)) for place in episode.observations[5:16, 0]]
    assert np.allclose([int(frame[0, 0, 0]) for frame in frames], greys, atol=1)
    assert len(set(greys)) > 1
