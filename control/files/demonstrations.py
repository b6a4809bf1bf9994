"""Demonstrations from the files that other programs write, and into them.

What lies at a place is recognised by its first bytes, never by its name. A reader turns it into episodes; the checks
are the same for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from control.files import hdf5, imitation_folder, minari_folder, npz
from control.files.boundary import reading
from control.files.recording import Checks, Recording, Spaces, refuse_padding
from envs.robots.episodes import FIELDS, Episode, trajectories, with_absorbing
from unified_irl.errors import UserError, unknown_name
from unified_irl.feedback import Demonstrations, Preferences, Provenance
from unified_irl.feedback_files import load_demonstrations, load_preferences
from unified_irl.trajectories import Trajectories

MINARI = "minari:"
READABLE = (
    "a Minari dataset (its folder, or minari:<id>), an npz or hdf5 file in D4RL's layout, a folder of trajectories "
    "saved by imitation, or a safetensors file of demonstrations"
)


def read_demonstrations(
    path_or_id: str | Path,
    num_episodes: int = 0,
    min_return: float | None = None,
    *,
    spaces: Spaces | None = None,
    maker: str = "unknown",
    quality: float | None = None,
    download: bool = False,
) -> Demonstrations:
    """The demonstrations at a path, or of a Minari dataset by its id (`minari:mujoco/hopper/expert-v0`).

    `num_episodes` takes the first so many (0 = all) of those whose true return is at least `min_return`. With `spaces`,
    observations and actions must be the task's, and actions inside its bounds; what lies outside by rounding is clipped
    and counted in the provenance. `maker` and `quality` say who showed it, where the file does not. Nothing is
    downloaded unless `download` says so.
    """
    path, what, reader = _recognised(path_or_id, download)
    with reading(path, what):
        recording = reader(path)
        checks = Checks(path, recording.names, spaces)
        episodes, index = _chosen(recording, checks, num_episodes, min_return, path)
    clipped = [f"{checks.clipped} actions clipped to their bounds"] if checks.clipped else []
    source = ", ".join([str(path_or_id), *recording.notes, *clipped])
    if recording.own is not None:
        return _with_actions_of(episodes, recording.own[torch.tensor(index)], clipped)
    refuse_padding(path, episodes)
    made = Demonstrations(
        trajectories=trajectories(episodes),
        maker=torch.zeros(len(episodes), dtype=torch.long),
        makers=(Provenance(maker=maker, quality=quality, source=source),),
    )
    return made.validated(str(path))


def _chosen(
    recording: Recording, checks: Checks, num_episodes: int, min_return: float | None, path: Path
) -> tuple[list[Episode], list[int]]:
    """The first so many episodes with enough return, and their numbers."""
    if num_episodes < 0:
        raise UserError(f"num_episodes is {num_episodes}; expected how many episodes to read, or 0 for all.")
    if min_return is not None and not recording.has_rewards:
        raise UserError(f"{path} holds no rewards, so min_return cannot choose among its episodes; leave it out.")
    episodes, index = [], []
    best = -np.inf
    for number, one in enumerate(recording.episodes):
        checked = checks(number, one)
        total = float(checked.rewards.sum(dtype=np.float64))
        best = max(best, total)
        if min_return is None or total >= min_return:
            episodes.append(checked)
            index.append(number)
        if num_episodes and len(episodes) == num_episodes:
            break
    if len(episodes) < max(1, num_episodes):
        enough = "" if min_return is None else f" with a return of {min_return:g} or more (the best has {best:g})"
        raise UserError(
            f"{path} holds {len(episodes)} episodes{enough}; expected at least {max(1, num_episodes)}. Ask for fewer."
        )
    return episodes, index


def _recognised(path_or_id: str | Path, download: bool) -> tuple[Path, str, Callable[[Path], Recording]]:
    """The place, what lies there, and its reader."""
    name = str(path_or_id)
    path = Path(name)
    if name.startswith(MINARI) or not path.exists():
        return _minari(name, download), "a Minari dataset", minari_folder.read
    if path.is_dir():
        if any((folder / minari_folder.METADATA).is_file() for folder in (path, path / "data")):
            return path, "a Minari dataset", minari_folder.read
        if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
            return path, "trajectories of imitation", imitation_folder.read
        raise UserError(f"{path}: nothing in this folder is known; expected {READABLE}.")
    with reading(path, "a file"), path.open("rb") as file:
        first = file.read(9)
    if first.startswith(b"PK"):
        return path, "an npz file", npz.read
    if first.startswith(b"\x89HDF\r\n\x1a\n"):
        return path, "an HDF5 file", hdf5.read
    if first[8:] == b"{":
        return path, "a file of demonstrations", _read_own
    raise UserError(f"{path}: a file that begins like this is not known; expected {READABLE}. Is it whole?")


def _minari(name: str, download: bool) -> Path:
    """The folder of the Minari dataset of this id, or a sentence about how to get it."""
    plain = name.removeprefix(MINARI)
    folder = minari_folder.folder_of(plain)
    if folder is None:
        raise UserError(f"{name} is neither an existing path nor the id of a Minari dataset; expected {READABLE}.")
    if not (folder / "data").exists():
        if not download:
            raise UserError(
                f"The Minari dataset {plain} is not on this machine (expected in {folder}). Download it with "
                f"`minari download {plain}`, or set people.allow_download; if a path was meant, check its spelling."
            )
        return minari_folder.downloaded(plain)
    return folder


def _read_own(path: Path) -> Recording:
    demonstrations = load_demonstrations(path)
    _refuse_other_worlds(path, demonstrations.trajectories)
    return Recording(episodes=episodes_of(demonstrations.trajectories, str(path)), own=demonstrations)


def read_own_preferences(path: str | Path, spaces: Spaces, *, runs_on: bool) -> Preferences:
    """Compared segments from a file of this project, checked against the task as demonstrations are. With `runs_on`,
    those that run into an end go on in absorbing steps until the other side is over too, or as the file has it."""
    with reading(path, "a file of comparisons"):
        compared = load_preferences(path)
        sides, lengths = [], []
        for side in (compared.first, compared.second):
            _refuse_other_worlds(Path(path), side)
            checks = Checks(path, {}, spaces)
            lived = trajectories([checks(k, one) for k, one in enumerate(episodes_of(side, str(path)))])
            sides.append(replace(lived, context_id=side.context_id, weight=side.weight, start_step=side.start_step))
            lengths.append(side.mask.sum(1) + side.data["absorbing"].sum(1).long())
    horizon = torch.maximum(*lengths) if runs_on else 0
    first, second = (with_absorbing(side, horizon) for side in sides)
    return replace(compared, first=first, second=second)


def _refuse_other_worlds(path: Path, behaviours: Trajectories) -> None:
    data = behaviours.data
    for name in FIELDS:
        if name not in data:
            raise UserError(f"{path}: '{name}' is missing; the file holds {', '.join(data)}. Is it of another world?")
        if data[name].dim() != (3 if name in ("observation", "action", "next_observation") else 2):
            raise UserError(f"{path}: '{name}' has shape {list(data[name].shape)}, which no control data have.")
    if data["next_observation"].shape != data["observation"].shape:
        raise UserError(f"{path}: 'observation' and 'next_observation' have different shapes; expected the same.")


def episodes_of(behaviours: Trajectories, where: str) -> list[Episode]:
    """The episodes in a padded batch: its chosen steps. Absorbing columns are no part of an episode."""
    arrays = {name: behaviours.data[name].numpy() for name in FIELDS}
    episodes = []
    for row, mask in enumerate(behaviours.mask.numpy()):
        steps = int(mask.sum())
        if not mask[:steps].all():
            raise UserError(
                f"{where}, episode {row}: a step that nobody chose lies between chosen ones; expected none."
            )
        log_prob = behaviours.behaviour_log_prob[row, :steps].numpy()
        episodes.append(
            Episode(
                observations=np.concatenate(
                    [arrays["observation"][row, :steps], arrays["next_observation"][row, steps - 1 : steps]]
                ),
                actions=arrays["action"][row, :steps],
                rewards=arrays["true_reward"][row, :steps],
                terminated=bool(behaviours.terminated[row]),
                truncated=bool(behaviours.truncated[row]),
                log_prob=log_prob if log_prob.any() else None,
            )
        )
    return episodes


def _with_actions_of(episodes: list[Episode], own: Demonstrations, clipped: list[str]) -> Demonstrations:
    """Our own demonstrations, with the actions as the checks left them."""
    if not clipped:
        return own
    actions = trajectories(episodes).padded(own.trajectories.num_steps).data["action"]
    behaviours = replace(own.trajectories, data={**own.trajectories.data, "action": actions})
    makers = tuple(replace(one, source=", ".join(filter(None, [one.source, *clipped]))) for one in own.makers)
    return replace(own, trajectories=behaviours, makers=makers)


def write_demonstrations(path: str | Path, demonstrations: Demonstrations, format: str) -> None:
    """Write the episodes for other programs: 'npz' or 'hdf5' (D4RL's layout), 'minari' (the path is then an id), or
    'imitation' (a folder).

    Contexts, weights and makers stay behind, because these formats have no place for them (so do log-probabilities,
    except in D4RL's layout); `unified_irl.feedback_files.save_demonstrations` keeps everything.
    """
    writers: dict[str, Callable[[Path, list[Episode]], None]] = {
        "npz": npz.write,
        "hdf5": hdf5.write,
        "imitation": imitation_folder.write,
    }
    episodes = episodes_of(demonstrations.validated().trajectories, "demonstrations")
    if format == "minari":
        minari_folder.write(str(path).removeprefix(MINARI), episodes)
        return
    if format not in writers:
        raise unknown_name("format", format, [*writers, "minari"])
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writers[format](path, episodes)
    except OSError as error:
        raise UserError(
            f"{path} could not be written: {error.strerror or error}. Free space or choose another place."
        ) from error
