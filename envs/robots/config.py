"""Who demonstrates and who compares in the control world. No tensor library here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from envs.labeller import TEACHERS, LabellerConfig
from unified_irl.errors import UserError

Tier = Literal["simple", "medium", "expert"]
TIERS: tuple[Tier, ...] = ("simple", "medium", "expert")
Teacher = Literal["oracle", "mistake", "noisy", "skip", "myopic", "equal", "custom"]


@dataclass(frozen=True, kw_only=True)
class PeopleConfig:
    """The feedback to learn from."""

    num_demonstrations: int = 1
    """Episodes shown."""
    demonstrator: Tier = "expert"
    """Which of the task's own policies shows them."""
    demonstrations_file: str = ""
    """Episodes to learn from instead: a file or folder (safetensors, npz, HDF5, Minari, a Hugging Face dataset of
    trajectories) or the id of a local Minari dataset, minari:NAME. All of its episodes are shown."""

    num_preferences: int = 100
    """Comparisons made."""
    allow_download: bool = False
    """Fetch a Minari dataset that demonstrations_file names and that is not on this machine."""
    segment_length: int = 50
    """Steps of each compared segment."""
    compared: tuple[Tier, ...] = TIERS
    """Whose segments are compared: those of the task's own policies, drawn at random."""
    num_compared_episodes: int = 5
    """Episodes of each of them that segments are cut from."""
    teacher: Teacher = "oracle"
    """Who compares: one of B-Pref's six teachers, or custom for the labeller below."""
    labeller: LabellerConfig = field(default_factory=LabellerConfig)
    """The labeller of the custom teacher."""
    preferences_file: str = ""
    """Comparisons to learn from instead: a safetensors file, or parquet that refers to episodes of another file. They
    are taken as they were given: num_preferences, segment_length, compared and teacher are for those made here."""
    compared_file: str = ""
    """The file of episodes that a parquet preferences_file refers to; by default demonstrations_file."""
    data_seed: int = -1
    """Seed of the choice of demonstrations and of the comparisons; -1 takes the run's."""

    def __post_init__(self) -> None:
        for name, least in (("num_demonstrations", 0), ("num_preferences", 0), ("segment_length", 1),
                            ("num_compared_episodes", 1)):  # fmt: skip
            if getattr(self, name) < least:
                raise UserError(f"people: {name} is {getattr(self, name)}; expected {least} or more.")
        if not self.compared:
            raise UserError("people: compared is empty; name at least one of simple, medium, expert.")
        if self.teacher != "custom" and self.labeller != LabellerConfig():
            raise UserError(
                f"people: labeller is that of the teacher custom, but teacher is {self.teacher}; set people.teacher to "
                "custom, or leave people.labeller as it is."
            )

    @property
    def who_compares(self) -> LabellerConfig:
        return self.labeller if self.teacher == "custom" else TEACHERS[self.teacher]
