"""Configs survive the trip through JSON, and every mistake in the JSON is named where it stands."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unified_irl.errors import UserError
from unified_irl.serialise import content_hash, from_json, read_json, to_json, write_json


@dataclass(frozen=True, kw_only=True)
class Phase:
    learning_rate: float = 3e-4
    num_rounds: int = 1
    link: Literal["linear", "pairwise"] = "linear"

    def __post_init__(self) -> None:
        if self.num_rounds < 0:
            raise UserError(f"num_rounds is {self.num_rounds}, expected zero or more.")


@dataclass(frozen=True, kw_only=True)
class Fixed:
    name: str


@dataclass(frozen=True, kw_only=True)
class Config:
    beta: float
    phases: tuple[Phase, ...] = ()
    limits: tuple[float, float] = (-math.inf, math.inf)
    folder: Path | None = None
    plan: Phase | Fixed | None = None
    clip: float | Literal["auto"] = "auto"
    norm: Literal["inf", "two"] = "inf"
    verbose: bool = False


FULL = Config(
    beta=0.5,
    phases=(Phase(learning_rate=math.inf), Phase(num_rounds=7, link="pairwise")),
    folder=Path("runs/a"),
    plan=Fixed(name="inf"),
    clip=math.inf,
)


def through_text(config: Any) -> Any:
    """What a reader that knows only standard JSON hands back."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(json.dumps(to_json(config)), parse_constant=refuse)


def message(data: Any, type_: type = Config) -> str:
    with pytest.raises(UserError) as caught:
        from_json(type_, data, "config.json")
    return str(caught.value)


def test_a_config_survives_the_trip() -> None:
    assert from_json(Config, through_text(FULL), "here") == FULL
    assert isinstance(from_json(Config, through_text(FULL), "here").phases[0], Phase)


def test_inf_is_a_number_only_where_a_number_is_wanted() -> None:
    data = through_text(FULL)
    assert (data["clip"], data["norm"], data["plan"]["name"]) == ("inf", "inf", "inf")
    back = from_json(Config, data, "here")
    assert (back.clip, back.norm, back.plan) == (math.inf, "inf", Fixed(name="inf"))


def test_nan_comes_back() -> None:
    assert math.isnan(from_json(Config, through_text(Config(beta=math.nan)), "here").beta)


def test_reading_does_not_change_the_data() -> None:
    data = {"beta": "inf"}
    from_json(Config, data, "here")
    assert data == {"beta": "inf"}


@given(st.floats(), st.integers(min_value=0), st.lists(st.floats(allow_nan=False), min_size=2, max_size=2))
def test_any_numbers_survive(beta: float, num_rounds: int, limits: list[float]) -> None:
    config = Config(beta=beta, phases=(Phase(num_rounds=num_rounds),), limits=(limits[0], limits[1]))
    back = from_json(Config, through_text(config), "here")
    assert (math.isnan(back.beta) and math.isnan(beta)) or back == config


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"beta": "abc"}, ["config.json", "'beta' is \"abc\"", "expected a number"]),
        ({"beta": "1.5"}, ["'beta' is \"1.5\"", "expected a number"]),
        ({"beta": True}, ["'beta' is true", "expected a number"]),
        ({}, ["'beta' is missing"]),
        ({"beta": 1, "bteta": 2}, ["the key 'bteta' is not known", "did you mean beta?"]),
        ({"beta": 1, "zzzzz": 2}, ["the key 'zzzzz' is not known", "remove it"]),
        ({"beta": 1, "phases": [{}, {"lerning_rate": 1}]}, ["'phases[1].lerning_rate'", "mean learning_rate?"]),
        ({"beta": 1, "phases": [{"num_rounds": 1.5}]}, ["'phases[0].num_rounds' is 1.5", "expected a whole number"]),
        ({"beta": 1, "phases": [{"link": "cubic"}]}, ["'phases[0].link' is \"cubic\"", "'linear' or 'pairwise'"]),
        ({"beta": 1, "phases": [{"num_rounds": -1}]}, ["'phases[0]': num_rounds is -1, expected zero or more."]),
        ({"beta": 1, "phases": {}}, ["'phases' is {}", "expected a list"]),
        ({"beta": 1, "phases": [3]}, ["'phases[0]' is 3", "expected a table of settings"]),
        ({"beta": 1, "limits": [1]}, ["'limits[1]' is missing"]),
        ({"beta": 1, "clip": "abc"}, ["'clip' is \"abc\", expected a number or 'auto'."]),
        ({"beta": 1, "verbose": 1}, ["'verbose' is 1", "expected true or false"]),
        ({"beta": 1, "folder": 3}, ["'folder' is 3", "expected text"]),
        ({"beta": None}, ["'beta' is null", "expected a number"]),
        ([], ["'the whole' is []", "expected a table of settings"]),
        ({"beta": "a", "verbose": "b"}, ["'beta' is", "'verbose' is"]),
    ],
)
def test_mistakes_are_named(data: Any, words: list[str]) -> None:
    said = message(data)
    for word in words:
        assert word in said


def test_the_hash_names_the_content() -> None:
    """The digits are sha256('{"a":1,"b":[2,"inf"]}'), so they never change between versions."""
    assert content_hash({"b": (2.0, math.inf), "a": 1}) == content_hash({"a": 1.0, "b": [2, math.inf]})
    assert content_hash({"a": 1, "b": [2, math.inf]}) == "a6eb780a7fe6"
    assert content_hash(FULL) == content_hash(to_json(FULL))
    assert content_hash(Config(beta=1)) == content_hash(Config(beta=1.0)) != content_hash(Config(beta=1.01))
    assert content_hash({"a": True}) != content_hash({"a": 1})


def test_json_files_hold_odd_numbers_and_replace_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"x": np.float32(0.5), "n": np.int64(3), "bad": math.nan, "pair": (1, 2), "at": Path("b")})
    assert read_json(path) == {"x": 0.5, "n": 3, "bad": "nan", "pair": [1, 2], "at": "b"}
    with pytest.raises(TypeError):
        write_json(path, {"x": object()})
    assert read_json(path)["n"] == 3
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("content", "words"), [(None, "does not exist"), (b"{\n1", "line 2, column 1"), (b"\xff\xfe", "not a text file")]
)
def test_unreadable_json_gets_a_sentence(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_json(path)
