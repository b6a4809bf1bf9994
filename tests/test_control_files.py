"""Control data in and out: every format comes back as it was, and each way to be wrong has its sentence."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from commands import Command
from robots import noise_episodes, seeded

from control.files.demonstrations import episodes_of, read_demonstrations, write_demonstrations
from control.files.preferences import HEADER, Comparisons, content_sha256, read_preferences, write_preferences
from envs.robots.episodes import Episode, trajectories, window, with_absorbing
from unified_irl import feed
from unified_irl.errors import UserError
from unified_irl.feedback import Demonstrations, Provenance
from unified_irl.feedback_files import save_demonstrations
from unified_irl.rundir import read_metrics
from unified_irl.trajectories import Trajectories

torch.set_num_threads(1)

SPACES = (3, 2, -1.0, 1.0)
LENGTHS = (4, 1, 5)
"""Steps of the episodes below; the second is over after one step."""
FORMATS = ("npz", "hdf5", "imitation", "minari")


@pytest.fixture(autouse=True)
def minari_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


def shown() -> Demonstrations:
    """Returns 4, 1 and 5: every step pays 1. The world ended the first, a limit the second, both the third."""
    draw = np.random.default_rng(0)
    episodes = [
        Episode(
            observations=draw.normal(size=(steps + 1, 3)).astype(np.float32),
            actions=draw.uniform(-1, 1, size=(steps, 2)).astype(np.float32),
            rewards=np.ones(steps, np.float32),
            terminated=steps != 1,
            truncated=steps != 4,
        )
        for steps in LENGTHS
    ]
    return Demonstrations(
        trajectories=trajectories(episodes), maker=torch.zeros(3, dtype=torch.long), makers=(Provenance(maker="p"),)
    )


def place(tmp_path: Path, format: str) -> str:
    return "minari:test/shown-v0" if format == "minari" else str(tmp_path / f"shown.{format}")


def same(one: Trajectories, other: Trajectories) -> bool:
    ours, theirs = (state.pop("data") | state for state in (one.state_dict(), other.state_dict()))
    return ours.keys() == theirs.keys() and all(
        ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name]) for name in ours
    )


def arrays() -> dict[str, np.ndarray]:
    """D4RL's layout by hand: two steps that end, two that a limit cuts, one left over. One observation dimension,
    which counts the steps."""
    return {
        "observations": np.arange(5.0)[:, None],
        "actions": np.zeros((5, 1)),
        "rewards": np.arange(5.0),
        "terminals": np.array([0, 1, 0, 0, 0], bool),
        "timeouts": np.array([0, 0, 0, 1, 0], bool),
    }


def saved(tmp_path: Path, **changed: np.ndarray | None) -> Path:
    path = tmp_path / "hand.npz"
    np.savez(path, **{name: array for name, array in {**arrays(), **changed}.items() if array is not None})
    return path


@pytest.mark.parametrize("format", FORMATS)
def test_demonstrations_come_back_as_they_were(tmp_path: Path, format: str):
    data = shown()
    if format == "imitation":  # it has one flag for the end, and one for its being a time limit
        data = replace(data, trajectories=replace(data.trajectories, truncated=~data.trajectories.terminated))
    write_demonstrations(place(tmp_path, format), data, format)
    back = read_demonstrations(place(tmp_path, format), spaces=SPACES, maker="p", quality=0.5)
    assert same(back.trajectories, data.trajectories)
    assert back.makers == (Provenance(maker="p", quality=0.5, source=place(tmp_path, format)),)


@pytest.mark.parametrize("format", ["npz", "hdf5"])
def test_log_probabilities_travel_in_the_layout_of_d4rl(tmp_path: Path, format: str):
    data = shown()
    known = torch.where(data.trajectories.mask, -0.5, 0.0)
    data = replace(data, trajectories=replace(data.trajectories, behaviour_log_prob=known))
    write_demonstrations(tmp_path / "file", data, format)
    assert same(read_demonstrations(tmp_path / "file").trajectories, data.trajectories)


def test_our_own_files_keep_contexts_weights_and_makers(tmp_path: Path):
    data = shown()
    behaviours = replace(
        with_absorbing(data.trajectories, horizon=6),
        context_id=torch.tensor([2, 0, 1]),
        weight=torch.tensor([1.0, 2, 3]),
    )
    data = replace(
        data, trajectories=behaviours, maker=torch.tensor([1, 0, 1]), makers=(*data.makers, Provenance(maker="q"))
    )
    save_demonstrations(tmp_path / "own", data)
    back = read_demonstrations(tmp_path / "own", spaces=SPACES, min_return=4.0)
    assert same(back.trajectories, data.trajectories[torch.tensor([0, 2])])
    assert back.maker.tolist() == [1, 1]
    assert back.makers == data.makers


def test_absorbing_columns_are_added_once():
    """However often an episode passes through here, files too; a shorter horizon leaves fewer, none leaves none."""
    lived = shown().trajectories
    once = with_absorbing(lived, horizon=9)
    assert bool(once.data["absorbing"].any())
    assert same(with_absorbing(once, horizon=9), once)
    assert torch.equal(
        with_absorbing(once, horizon=7).data["absorbing"].sum(1),
        with_absorbing(lived, horizon=7).data["absorbing"].sum(1),
    )
    assert same(with_absorbing(once, horizon=0), lived.padded(once.num_steps))


def test_windows_run_on_into_what_follows_an_end():
    """Windows of 4 of an episode of 6 steps and 94 absorbing ones: any lived step is as likely a first one, and every
    window covers 4 steps, those after the end counted."""
    episode = noise_episodes("pendulum", 1)[0]
    cut = replace(
        episode, observations=episode.observations[:7], actions=episode.actions[:6], rewards=episode.rewards[:6],
        terminated=True, truncated=False,
    )  # fmt: skip
    whole = trajectories([episode, cut])
    behaviours = with_absorbing(whole, horizon=100)[torch.tensor([0, 1]).repeat(3000)]
    windows = window(behaviours, 4, seeded())
    covered = windows.mask.sum(1) + windows.data["absorbing"].sum(1)
    assert covered.tolist() == [4.0] * 6000
    starts = windows.start_step[1::2]
    assert torch.bincount(starts, minlength=6).tolist() == pytest.approx([500.0] * 6, abs=90)  # four deviations
    assert torch.equal(windows.data["absorbing"].sum(1)[1::2], (starts - 2.0).clamp(min=0.0))
    plain = feed.window(whole, 4, seeded(3))
    assert same(window(whole, 4, seeded(3)), plain), "where nothing runs on, it is the core's"


def test_absorbing_columns_are_no_part_of_an_episode():
    behaviours = with_absorbing(shown().trajectories, horizon=9)
    assert behaviours.num_steps == 6
    assert [len(one) for one in episodes_of(behaviours, "test")] == list(LENGTHS)


def test_a_format_is_recognised_by_content(tmp_path: Path):
    write_demonstrations(tmp_path / "a.hdf5", shown(), "npz")
    write_demonstrations(tmp_path / "b.npz", shown(), "hdf5")
    assert same(
        read_demonstrations(tmp_path / "a.hdf5").trajectories, read_demonstrations(tmp_path / "b.npz").trajectories
    )


def test_without_next_observations_a_cut_episode_loses_its_last_step(tmp_path: Path):
    back = read_demonstrations(saved(tmp_path))
    # Steps 0 and 1 end by themselves: both stay, with observation 1 standing in for what followed. Steps 2 and 3 are
    # cut: 3 goes, its observation is what step 2 led to. Step 4 is cut by the end of the file and is all there was.
    assert back.trajectories.data["observation"].squeeze(2).tolist() == [[0, 1], [2, 0]]
    assert back.trajectories.data["next_observation"].squeeze(2).tolist() == [[1, 1], [3, 0]]
    assert back.trajectories.terminated.tolist() == [True, False]
    assert back.trajectories.truncated.tolist() == [False, True]
    assert "lost their last step" in back.makers[0].source


def test_with_next_observations_nothing_is_lost(tmp_path: Path):
    back = read_demonstrations(saved(tmp_path, next_observations=np.array([[1.0], [9], [3], [8], [7]])))
    assert back.trajectories.data["next_observation"].squeeze(2).tolist() == [[1, 9], [3, 8], [7, 0]]
    assert back.trajectories.terminated.tolist() == [True, False, False]
    assert back.trajectories.truncated.tolist() == [False, True, True]


def test_a_file_without_timeouts_is_read(tmp_path: Path):
    back = read_demonstrations(saved(tmp_path, timeouts=None))
    assert back.trajectories.mask.sum(1).tolist() == [2, 2]  # steps 2 to 4 are one unfinished episode


def test_episodes_are_chosen_by_return_and_number(tmp_path: Path):
    write_demonstrations(tmp_path / "file", shown(), "npz")

    def lengths(**choice: float) -> list[int]:
        return read_demonstrations(tmp_path / "file", **choice).trajectories.mask.sum(1).tolist()

    assert lengths(num_episodes=2) == [4, 1]
    assert lengths(min_return=4.0) == [4, 5]
    assert lengths(min_return=4.0, num_episodes=1) == [4]
    with pytest.raises(UserError, match=r"holds 1 episodes with a return of 4.5 or more \(the best has 5\)"):
        lengths(min_return=4.5, num_episodes=2)


@pytest.mark.parametrize("format", ["npz", "own"])
def test_actions_beyond_the_bounds_by_rounding_are_clipped_and_counted(tmp_path: Path, format: str):
    data = shown()
    action = data.trajectories.data["action"].clone()
    action[0, 2, 1] = 1.01  # the range is 2 wide, a hundredth of it is 0.02
    data = replace(data, trajectories=replace(data.trajectories, data={**data.trajectories.data, "action": action}))
    if format == "own":
        save_demonstrations(tmp_path / "file", data)
    else:
        write_demonstrations(tmp_path / "file", data, format)
    back = read_demonstrations(tmp_path / "file", spaces=SPACES)
    assert back.trajectories.data["action"][0, 2, 1] == 1.0
    assert back.makers[0].source.endswith("1 actions clipped to their bounds")
    with pytest.raises(
        UserError, match=r"episode 0: 'actions' holds 1.01 at step 2, dimension 1; expected -0.5 to 0.5"
    ):
        read_demonstrations(tmp_path / "file", spaces=(3, 2, -0.5, np.array([0.9, 0.5])), num_episodes=1)


NAN = np.array([[0.0], [1], [2], [np.nan], [4]])
WRONG: dict[str, tuple[dict[str, np.ndarray | None], str]] = {
    "missing": ({"actions": None}, "'actions' is missing; the file holds observations, rewards, terminals, timeouts"),
    "lengths": ({"actions": np.zeros((4, 1))}, r"'actions' has shape \[4, 1\] but 'observations' holds 5 steps"),
    "images": ({"observations": np.zeros((5, 2, 2))}, r"episode 0: 'observations' has shape \[3, 2, 2\]"),
    "discrete": ({"actions": np.zeros(5)}, r"episode 0: 'actions' has shape \[2\]; expected \[2, dimensions\]"),
    "nan": ({"observations": NAN}, "episode 1: 'observations' is NaN or infinite at step 1"),
    "text": ({"rewards": np.array(["a"] * 5)}, "episode 0: 'rewards' holds <U1; expected an array of numbers"),
    "flags": ({"terminals": np.arange(5)}, r"'terminals' has shape \[5\] of int64; expected one true or false"),
    "objects": ({"rewards": np.array([{}] * 5, dtype=object)}, "'rewards' holds Python objects, which are never"),
    "shuffled": ({"next_observations": np.zeros((5, 1))}, "episode 0: 'next_observations' at step 0 is not"),
    "beyond float32": ({"rewards": np.full(5, 1e300)}, "episode 0: 'rewards' is NaN or infinite at step 0"),
    "nothing": ({name: array[:0] for name, array in arrays().items()}, "holds 0 episodes; expected at least 1"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_each_wrong_array_has_its_sentence(tmp_path: Path, kind: str):
    changed, sentence = WRONG[kind]
    with pytest.raises(UserError, match=sentence) as caught:
        read_demonstrations(saved(tmp_path, **changed))
    assert str(tmp_path / "hand.npz") in str(caught.value)


@pytest.mark.parametrize(("spaces", "sentence"), [
    ((4, 2, -1.0, 1.0), "episode 0: 'observations' has 3 dimensions but the task has 4"),
    ((3, 1, -1.0, 1.0), "episode 0: 'actions' has 2 dimensions but the task has 1"),
])  # fmt: skip
def test_demonstrations_of_another_task_are_refused(
    tmp_path: Path, spaces: tuple[int, int, float, float], sentence: str
):
    for format in FORMATS:
        write_demonstrations(place(tmp_path, format), shown(), format)
        own_names = sentence.replace("observations", "obs").replace("actions", "acts")
        with pytest.raises(UserError, match=own_names if format == "imitation" else sentence):
            read_demonstrations(place(tmp_path, format), spaces=spaces)


def test_a_declared_size_beyond_the_file_is_refused_before_it_is_allocated(tmp_path: Path):
    with h5py.File(tmp_path / "file", "w") as file:
        file.create_dataset("observations", shape=(2**40, 3), dtype="f4", chunks=(1024, 3))[:4] = 1.0
    with pytest.raises(UserError, match="'observations' says it holds 13194139533312 bytes, which are not in the file"):
        read_demonstrations(tmp_path / "file")


def test_hdf5_groups_that_contain_themselves_are_refused(tmp_path: Path):
    with h5py.File(tmp_path / "file", "w") as file:
        for number in range(50):
            file[f"round{number}"] = file["/"]
    with pytest.raises(UserError, match="the group 'round0/' is there under two names"):
        read_demonstrations(tmp_path / "file")


@pytest.mark.parametrize("format", ["npz", "hdf5"])
def test_a_file_that_unpacks_to_far_more_than_itself_is_refused(tmp_path: Path, format: str):
    """128 MiB of zeros take a thousandth of that when compressed: no recording does."""
    zeros = np.zeros((2**25, 1), np.float32)
    if format == "npz":
        np.savez_compressed(tmp_path / "file.npz", observations=zeros)
        (tmp_path / "file.npz").rename(tmp_path / "file")
    else:
        with h5py.File(tmp_path / "file", "w") as file:
            file.create_dataset("observations", data=zeros, compression="gzip")
    with pytest.raises(UserError, match=r"says it holds 1.34e\+08 bytes but takes \d+ on disk"):
        read_demonstrations(tmp_path / "file")


def test_a_missing_chunk_of_very_many_is_noticed_at_once(tmp_path: Path, minari_root: Path):
    """Minari reads what the file promises, here ten million chunks of which one is there; that would take minutes."""
    write_demonstrations("test/shown-v0", shown(), "minari")
    with h5py.File(minari_root / "test" / "shown-v0" / "data" / "main_data.hdf5", "a") as file:
        file["episode_0/rewards"].resize((2**25,))
    with pytest.raises(UserError, match=r"'episode_0/rewards' says it holds .* bytes, which are not in the file"):
        read_demonstrations("test/shown-v0")


def test_a_download_that_fails_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MINARI_REMOTE", "nowhere://at-all")
    with pytest.raises(UserError, match=r"minari:test/far-v0 could not be downloaded: .*nowhere.*minari list remote"):
        read_demonstrations("minari:test/far-v0", download=True)


def test_hdf5_links_into_other_files_are_refused(tmp_path: Path):
    write_demonstrations(tmp_path / "one", shown(), "hdf5")
    with h5py.File(tmp_path / "two", "w") as file:
        file["observations"] = h5py.ExternalLink(str(tmp_path / "one"), "/observations")
    with pytest.raises(UserError, match="'observations' points elsewhere"):
        read_demonstrations(tmp_path / "two")


# Minari.


@pytest.mark.parametrize("storage", ["hdf5", "arrow", "parquet"])
@pytest.mark.parametrize(("task", "limit"), [("Pendulum-v1", 5), ("Hopper-v5", 25)])
def test_what_minari_collects_is_read_as_it_was_recorded(minari_root: Path, task: str, limit: int, storage: str):
    import minari

    env = minari.DataCollector(gym.make(task, max_episode_steps=limit), data_format=storage)
    env.action_space.seed(0)
    recorded, ends = [], []
    for seed in range(3):
        seen, did, paid = [env.reset(seed=seed)[0]], [], []
        over = False
        while not over:
            did.append(env.action_space.sample())
            observation, reward, terminated, truncated, _ = env.step(did[-1])
            seen.append(observation)
            paid.append(reward)
            over = terminated or truncated
        recorded.append([np.array(one, np.float32) for one in (seen, did, paid)])
        ends.append((terminated, truncated))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        env.create_dataset("test/collected-v0")
    box = env.action_space
    spaces = (len(seen[0]), len(did[0]), box.low, box.high)
    env.close()
    for name in ("test/collected-v0", "minari:test/collected-v0", minari_root / "test" / "collected-v0"):
        episodes = episodes_of(read_demonstrations(name, spaces=spaces).trajectories, "test")
        for one, whole, end in zip(episodes, recorded, ends, strict=True):
            assert (one.terminated, one.truncated) == end
            for read, array in zip((one.observations, one.actions, one.rewards), whole, strict=True):
                np.testing.assert_array_equal(read, array)
    # Pendulum never ends by itself; of these Hoppers some fall within 25 steps, and some do not.
    assert {end for end, _ in ends} == ({False} if task == "Pendulum-v1" else {False, True})


def test_what_minari_collects_trains_here(minari_root: Path, command: Command):
    import minari

    env = minari.DataCollector(gym.make("Pendulum-v1", max_episode_steps=20))
    env.action_space.seed(0)
    for seed in range(2):
        env.reset(seed=seed)
        while not env.step(env.action_space.sample())[3]:
            pass
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        env.create_dataset("test/collected-v0")
    env.close()
    short = ["--method.phases.0.rounds", "3", "--task.num-examined", "1", "--tracking.progress", "quiet"]
    given = "--task.people.demonstrations-file", "minari:test/collected-v0"
    said = command("train", "pendulum", "bc", *given, *short, "--out", "run")
    assert said.code == 0, said.err
    assert len(read_metrics(Path("run"))) == 3


def test_a_minari_dataset_that_is_not_here_says_how_to_get_it(minari_root: Path):
    for name in ("minari:mujoco/hopper/expert-v0", "mujoco/hopper/expert-v0"):
        with pytest.raises(UserError, match="`minari download mujoco/hopper/expert-v0`"):
            read_demonstrations(name)
    with pytest.raises(UserError, match="neither an existing path nor the id of a Minari dataset"):
        read_demonstrations("minari:../../etc/passwd-v0")
    with pytest.raises(UserError, match="neither an existing path nor the id"):
        read_demonstrations("no_such_file.npz")


def test_a_minari_dataset_cannot_choose_code_to_run(tmp_path: Path, minari_root: Path):
    """Without spaces in its metadata, Minari would make the environment that they name."""
    write_demonstrations("test/shown-v0", shown(), "minari")
    path = minari_root / "test" / "shown-v0" / "data" / "metadata.json"
    metadata = json.loads(path.read_text())
    del metadata["action_space"]
    spec = json.loads(gym.spec("Pendulum-v1").to_json())
    metadata["env_spec"] = json.dumps({**spec, "entry_point": "os:mkdir", "kwargs": {"path": str(tmp_path / "proof")}})
    path.write_text(json.dumps(metadata))
    with pytest.raises(UserError, match="'action_space' is missing"):
        read_demonstrations("test/shown-v0")
    assert not os.path.exists(tmp_path / "proof")


# imitation.


def test_imitation_tells_a_time_limit_in_the_last_info(tmp_path: Path):
    from datasets import Dataset

    limit = json.dumps({"TimeLimit.truncated": True, "terminal_observation": {"py/object": "os.system"}})
    rows = {
        "obs": [[[0.0], [1.0], [2.0]]] * 3,
        "acts": [[[0.5], [0.25]]] * 3,
        "infos": [["{}", limit], ["{}", "{}"], ["{}", "{}"]],
        "terminal": [True, True, False],
    }
    Dataset.from_dict(rows).save_to_disk(str(tmp_path / "saved"))
    back = read_demonstrations(tmp_path / "saved", spaces=(1, 1, -1.0, 1.0))
    assert back.trajectories.terminated.tolist() == [False, True, False]
    assert back.trajectories.truncated.tolist() == [True, False, True]
    assert back.trajectories.data["next_observation"][0].tolist() == [[1], [2]]
    with pytest.raises(UserError, match="holds no rewards, so min_return cannot choose"):
        read_demonstrations(tmp_path / "saved", min_return=1.0)


# Comparisons.


def compared(**changed: object) -> Comparisons:
    columns = {
        "episode_a": torch.tensor([0, 2, 2]),
        "start_a": torch.tensor([1, 0, 3]),
        "episode_b": torch.tensor([2, 0, 1]),
        "start_b": torch.tensor([0, 2, 0]),
        "length": torch.tensor([2, 3, 2]),
        "label": torch.tensor([1.0, 0.0, 0.5]),
        "teacher": ("ann", "bob", "ann"),
    }
    return Comparisons(**{**columns, **changed})


def written(tmp_path: Path, comparisons: Comparisons) -> tuple[Path, Trajectories]:
    write_demonstrations(tmp_path / "episodes.npz", shown(), "npz")
    episodes = read_demonstrations(tmp_path / "episodes.npz").trajectories
    write_preferences(tmp_path / "compared.parquet", comparisons, episodes, tmp_path / "episodes.npz")
    return tmp_path / "compared.parquet", episodes


@pytest.mark.parametrize("margin", [None, torch.tensor([0.5, 0.0, 0.25])])
def test_comparisons_come_back_as_segments(tmp_path: Path, margin: torch.Tensor | None):
    path, episodes = written(tmp_path, compared(margin=margin))
    back = read_preferences(path, episodes)
    assert back.level == "segment"
    assert torch.equal(back.label, compared().label)
    assert torch.equal(back.margin, torch.zeros(3) if margin is None else margin)
    assert [back.makers[maker].labeller for maker in back.maker] == ["ann", "bob", "ann"]
    for row, (a, at_a, b, at_b, length) in enumerate(
        [(0, 1, 2, 0, 2), (2, 0, 0, 2, 3), (2, 3, 1, 0, 2)]  # the rows of `compared`
    ):
        for side, episode, start in ((back.first, a, at_a), (back.second, b, at_b)):
            whole = episodes[torch.tensor([episode])].segment(torch.tensor([start]), length)
            assert same(side[row : row + 1], whole.padded(3))  # the longest of the three segments
    # Steps 3 and 4 are the last of the five of episode 2; steps 1 and 2 are not the last of the four of episode 0.
    assert back.first.terminated.tolist() == [False, False, True]
    # Steps 0 and 1 of an episode of one step: the second is padding.
    assert back.second.mask[2].tolist() == [True, False, False]


BAD_ROWS: dict[str, tuple[dict[str, object], str]] = {
    "episode": ({"episode_a": torch.tensor([0, 3, 2])}, "row 1: 'episode_a' is 3; expected an episode from 0 to 2"),
    "negative": ({"episode_b": torch.tensor([2, 0, -1])}, "row 2: 'episode_b' is -1; expected an episode"),
    "start": (
        {"start_b": torch.tensor([0, 4, 0])},
        r"row 1: 'start_b' is 4; expected a step of that episode \(0 to 3\)",
    ),
    "length": ({"length": torch.tensor([2, 3, 0])}, "row 2: 'length' is 0; expected 1 to 5 steps"),
    "label": ({"label": torch.tensor([1.0, 0.0, 1.5])}, "row 2: 'label' is 1.5; expected a probability from 0 to 1"),
    "nan": ({"label": torch.tensor([1.0, float("nan"), 0.5])}, "row 1: 'label' is nan; expected a probability"),
    "margin": ({"margin": torch.tensor([-1.0, 0, 0])}, "row 0: 'margin' is -1; expected a finite number of 0 or more"),
}


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_each_wrong_comparison_is_named_by_its_row(tmp_path: Path, kind: str):
    changed, sentence = BAD_ROWS[kind]
    with pytest.raises(UserError, match=sentence):  # nobody can write it
        written(tmp_path, compared(**changed))
    path, episodes = written(tmp_path, compared())
    column, value = next(iter(changed.items()))
    edit(path, lambda table: with_column(table, column, pa.array(value.numpy())))
    with pytest.raises(UserError, match=sentence):
        read_preferences(path, episodes)


def edit(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path)), path)


def with_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    if name not in table.column_names:
        return table.append_column(name, values)
    return table.set_column(table.column_names.index(name), name, values)


BAD_TABLES: dict[str, tuple[Callable[[pa.Table], pa.Table], str]] = {
    "missing": (lambda table: table.drop_columns("length"), "the column 'length' is missing; the table has episode_a"),
    "fractions": (
        lambda table: with_column(table, "start_a", pa.array([0.5, 1.0, 2.0])),
        "the column 'start_a' holds double; expected whole numbers",
    ),
    "empty cell": (
        lambda table: with_column(table, "label", pa.array([1.0, None, 0.0])),
        "row 1: 'label' is empty; expected every column filled",
    ),
    "no rows": (lambda table: table.slice(0, 0), "the table is empty"),
    "beyond 64 bits": (
        lambda table: with_column(table, "start_a", pa.array([2**64 - 1, 0, 0], pa.uint64())),
        "cannot be read as a parquet table of comparisons: Integer value 18446744073709551615 not in range",
    ),
    "no metadata": (lambda table: table.replace_schema_metadata(None), "its metadata do not name the file"),
    "other metadata": (lambda table: table.replace_schema_metadata({HEADER: b"[7]"}), "its metadata do not name"),
}


@pytest.mark.parametrize("kind", BAD_TABLES)
def test_each_wrong_table_has_its_sentence(tmp_path: Path, kind: str):
    change, sentence = BAD_TABLES[kind]
    path, episodes = written(tmp_path, compared())
    edit(path, change)
    with pytest.raises(UserError, match=sentence):
        read_preferences(path, episodes)


def test_comparisons_hold_for_the_episodes_they_were_made_from(tmp_path: Path):
    path, episodes = written(tmp_path, compared())
    with pytest.raises(UserError, match=r"counts 3 episodes in 'episodes.npz', but 2 were handed over"):
        read_preferences(path, episodes[:2])
    moved = (tmp_path / "episodes.npz").rename(tmp_path / "moved.npz")
    with pytest.raises(UserError, match=r"say with people\.compared_file where it is"):
        read_preferences(path, episodes)
    assert len(read_preferences(path, episodes, episodes_path=moved)) == 3
    moved.write_bytes(moved.read_bytes() + b"!")
    with pytest.raises(UserError, match=r"other content than .*moved.npz"):
        read_preferences(path, episodes, episodes_path=moved)


def test_a_folder_has_a_fingerprint_too(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    for name, content in (("b", "2"), ("a", "1")):
        (tmp_path / "folder" / name).write_text(content)
    before = content_sha256(tmp_path / "folder")
    (tmp_path / "folder" / "a").rename(tmp_path / "folder" / "c")
    assert content_sha256(tmp_path / "folder") != before


def test_damaged_tables_are_read_or_refused(tmp_path: Path):
    path, episodes = written(tmp_path, compared())
    whole = path.read_bytes()
    draw = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        for position in draw.integers(len(data), size=draw.integers(1, 6)):
            data[position] = draw.integers(256)
        path.write_bytes(data[: draw.integers(len(data))] if draw.random() < 0.2 else data)
        try:
            read_preferences(path, episodes)
        except UserError:
            refused += 1
    assert refused > 200
