"""Rows of datasets as demonstrations and comparisons, the files they lie in, and what is said of those that cannot be
read."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from datasets import Dataset, DatasetDict
from language import bpe_tokenizer
from pyarrow import parquet

from experiments.tiny import TEMPLATE
from llm.data import files
from llm.data.chat import Scribe
from llm.data.files import rows
from llm.data.records import Compared, Shown, Unfit, asked, compared, shown
from unified_irl.errors import UserError


def say(*said: str, first: str = "user") -> list[dict[str, str]]:
    """Messages that take turns."""
    roles = ("user", "assistant") if first == "user" else ("assistant", "user")
    return [{"role": roles[place % 2], "content": one} for place, one in enumerate(said)]


def turns(*said: str, first: str = "user") -> tuple[tuple[str, str], ...]:
    return tuple((one["role"], one["content"]) for one in say(*said, first=first))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "2+2=", "completion": " 4"}, Shown("2+2=", " 4")),
        ({"prompt": say("hi"), "completion": say("hello", first="assistant")},
         Shown(turns("hi"), turns("hello", first="assistant"))),
        ({"prompt": "hi", "prompt_id": "7", "messages": say("hi", "hello", "bye", "farewell")},
         Shown(turns("hi", "hello", "bye"), turns("farewell", first="assistant"))),
        ({"messages": say("hi", "hello", "are you there?")}, Shown(turns("hi"), turns("hello", first="assistant"))),
        ({"real": say("hi", "hello"), "generated": say("hi", "what?")},
         Shown(turns("hi"), turns("hello", first="assistant"))),
        ({"text": "once upon a time"}, Shown("", "once upon a time")),
    ],
)  # fmt: skip
def test_demonstrations(row: dict[str, Any], expected: Shown) -> None:
    assert shown(row) == expected
    assert asked(row) == expected.prompt


HH = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: how are you?\n\nAssistant:"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "2+2=", "chosen": " 4", "rejected": " 5"}, Compared("2+2=", " 4", " 5")),
        ({"chosen": f"{HH} I am fine", "rejected": f"{HH} I am not"}, Compared(HH, " I am fine", " I am not")),
        ({"chosen": "name a cat: Tom", "rejected": "name a cat: Tim"}, Compared("name a cat:", " Tom", " Tim")),
        ({"prompt": "hi", "chosen": say("hi", "hello"), "rejected": say("hi", "what?"), "score_chosen": 9.0,
          "score_rejected": 2.0},
         Compared(turns("hi"), turns("hello", first="assistant"), turns("what?", first="assistant"))),
        ({"prompt": say("hi"), "chosen": say("hello", first="assistant"), "rejected": say("what?", first="assistant")},
         Compared(turns("hi"), turns("hello", first="assistant"), turns("what?", first="assistant"))),
        ({"prompt": say("hi"), "chosen": say("hi", "hello"), "rejected": say("hi", "what?")},
         Compared(turns("hi"), turns("hello", first="assistant"), turns("what?", first="assistant"))),
        ({"prompt": "hi", "chosen": say("hello", first="assistant"), "rejected": say("what?", first="assistant")},
         Compared(turns("hi"), turns("hello", first="assistant"), turns("what?", first="assistant"))),
        ({"chosen": say("a", "b", "c", "d"), "rejected": say("a", "b", "c", "e")},
         Compared(turns("a", "b", "c"), turns("d", first="assistant"), turns("e", first="assistant"))),
    ],
)  # fmt: skip
def test_comparisons(row: dict[str, Any], expected: Compared) -> None:
    assert compared(row) == expected
    assert asked(row) == expected.prompt


@pytest.mark.parametrize(
    ("read", "row", "sentence"),
    [
        (shown, {"question": "?", "answer": "!"}, "has the columns question, answer; expected prompt and completion"),
        (shown, {}, "has the columns of no name"),
        (shown, {"completion": "x"}, "has no prompt; expected prompt and completion"),
        (shown, {"prompt": 3, "completion": "x"}, "has a number as its prompt; expected a text or a list of messages"),
        (shown, {"prompt": None, "completion": "x"}, "has nothing as its prompt; expected a text"),
        (shown, {"prompt": "x", "completion": say("y")}, "has a prompt and a completion of different kinds"),
        (shown, {"prompt": say("x"), "completion": say("y")}, "does not end with a message of the assistant"),
        (shown, {"messages": []}, "has an empty list as its messages"),
        (shown, {"messages": ["hi"]}, "has a text among its messages; expected messages, each with a role"),
        (shown, {"messages": [{"role": "user", "content": None}]}, "has a message of user with nothing as content"),
        (shown, {"messages": [{"role": "human", "content": "x"}]}, "has a message of 'human'; expected one of system"),
        (shown, {"text": "half of \ud83d"}, "has a text with half a character (\\ud83d)"),
        (shown, {"messages": say("half of \ud83d", "x")}, "has a text with half a character (\\ud83d)"),
        (shown, {"messages": say("hi")}, "has messages in which no assistant answers anybody"),
        (shown, {"messages": say("hi", first="assistant")}, "has messages in which no assistant answers anybody"),
        (compared, {"chosen": "x"}, "has the columns chosen; expected prompt, chosen and rejected"),
        (compared, {"prompt": "p", "chosen": "x", "rejected": "x"}, "compares an answer with itself"),
        (compared, {"chosen": "x", "rejected": say("y")}, "has a text on one side and messages on the other"),
        (compared, {"prompt": say("p"), "chosen": "x", "rejected": "y"}, "has messages as its prompt and texts"),
        (compared, {"chosen": say("a"), "rejected": say("b")}, "has a side that does not end with a message of"),
        (compared, {"chosen": say("a", "b"), "rejected": say("c", "d")}, "share no beginning, and no prompt"),
    ],
)  # fmt: skip
def test_each_misfit_is_named(read: Any, row: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Unfit) as told:
        read(row)
    assert sentence in str(told.value)


ROWS = [{"prompt": f"p{number}", "completion": "ü" * number} for number in range(1, 4)]


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def lines(some: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in some)


def sources(folder: Path) -> dict[str, Path]:
    """The same rows in every form."""
    made = {
        "jsonl": written(folder / "a.jsonl", lines(ROWS)),
        "no last line end": written(folder / "b.jsonl", lines(ROWS).rstrip("\n")),
        "byte order mark": written(folder / "c.jsonl", b"\xef\xbb\xbf" + lines(ROWS).encode()),
        "compressed": written(folder / "d.jsonl.gz", gzip.compress(lines(ROWS).encode())),
        "json": written(folder / "e.json", json.dumps(ROWS)),
        "parquet": folder / "f.parquet",
        "saved": folder / "saved",
        "saved with splits": folder / "splits",
        "folder of files": folder / "files",
    }
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), made["parquet"])
    Dataset.from_list(ROWS).save_to_disk(made["saved"])
    other = Dataset.from_list(ROWS[:1])
    DatasetDict({"train": Dataset.from_list(ROWS), "test": other}).save_to_disk(made["saved with splits"])
    made["folder of files"].mkdir()
    for name, some in (("train-0", ROWS[:2]), ("train-1", ROWS[2:]), ("test", ROWS[:1])):
        written(made["folder of files"] / f"{name}.jsonl", lines(some))
    return made


def test_rows_are_the_same_in_every_form(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made = sources(tmp_path)
    capfd.readouterr()
    for name, path in made.items():
        assert list(rows(str(path))) == list(enumerate(ROWS, 1)), name
    assert [len(list(rows(str(made[name]), "test"))) for name in ("saved with splits", "folder of files")] == [1, 1]
    assert capfd.readouterr() == ("", "")


def test_a_row_is_counted_by_its_line(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", '\n{"text": "x"}\n\n{"text": "y"}\n')
    assert [number for number, _ in rows(str(path))] == [2, 4]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl", "", "is empty; expected rows."),
        ("a.jsonl", '{"text": "x"}\n{"text": \n', "row 2, is no JSON (Expecting value"),
        ("a.jsonl", '{"text": "x"}\n{"te', "row 2, ends in the middle; was the file cut off?"),
        ("a.jsonl", b'{"text": "x"}\n{"text": "\xff"}\n', "row 2, is no UTF-8 (byte 11 of the line); save"),
        ("a.jsonl", '["x"]\n', "row 1, is list, not a table of columns"),
        ("a.jsonl", "[" * 100_000 + "\n", "row 1, is no JSON"),
        ("a.jsonl.gz", b"\x1f\x8b\x08\x00 no gzip", "cannot be read after row 0:"),
        ("a.jsonl.gz", gzip.compress(lines(ROWS * 1000).encode())[:-20], "cannot be read after row"),
        ("a.json", "{}", "holds no list of rows; expected [{…}, {…}, …]"),
        ("a.json", '[{"text": 1}', "is no JSON (Expecting ',' delimiter"),
        ("a.json", b"\xff", "is no UTF-8 (byte 1)"),
        ("a.json", '[{"text": "x"}, 3]', "row 2, is int, not a table"),
        ("a.parquet", "PAR1 and nothing else", "cannot be read as parquet:"),
        ("a.csv", "prompt,completion\n", "is none of .jsonl, .jsonl.gz, .json, .parquet; save its rows as one"),
    ],
)  # fmt: skip
def test_each_damaged_file_has_its_sentence(name: str, content: str | bytes, sentence: str, tmp_path: Path) -> None:
    path = written(tmp_path / name, content)
    with pytest.raises(UserError) as told:
        list(rows(str(path)))
    assert str(path) in str(told.value)
    assert sentence in str(told.value)


def test_a_hundred_megabytes_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(b'{"text": "x"}\n{"text": "')
        file.writelines(b"x" * 2**20 for _ in range(100))
    with pytest.raises(UserError, match="row 2, is a line of more than 16 MB; expected one row per line"):
        list(rows(str(path)))


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("no/such/thing", "There is no file or folder no/such/thing; expected one of .jsonl"),
        ("./data", "There is no file or folder ./data"),
        ("rows.jsonl", "There is no file or folder rows.jsonl"),
        (
            "owner/nothing",
            "There is no dataset owner/nothing on this machine, neither as a file or folder",
        ),
    ],
)
def test_what_is_nowhere(source: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as told:
        list(rows(source))
    assert sentence in str(told.value)


def test_folders_that_hold_no_rows(tmp_path: Path) -> None:
    made = sources(tmp_path / "all") if (tmp_path / "all").mkdir() is None else {}
    with pytest.raises(UserError, match="has no split 'valid'; it has train, test"):
        list(rows(str(made["saved with splits"]), "valid"))
    with pytest.raises(UserError, match="holds no saved dataset and none of"):
        list(rows(str(tmp_path)))
    (file,) = made["saved"].glob("*.arrow")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be read as a saved dataset"):
        list(rows(str(made["saved"])))


def damaged(row: Any, chance: random.Random) -> Any:
    """The row with one thing about it changed."""
    if isinstance(row, dict) and row and chance.random() < 0.7:
        name = chance.choice(list(row))
        if chance.random() < 0.2:
            return {key: value for key, value in row.items() if key != name}
        return {**row, name: damaged(row[name], chance)}
    if isinstance(row, list) and row and chance.random() < 0.7:
        place = chance.randrange(len(row))
        return [*row[:place], damaged(row[place], chance), *row[place + 1 :]]
    return chance.choice([None, 3, 1.5, True, "", "x", [], {}, [None], {"role": 1}, float("inf"), "\ud800", row])


def spelt(scribe: Scribe, told: Shown | Compared | Any) -> None:
    """What was read, as tokens."""
    if isinstance(told, Shown):
        scribe.spoken(told.prompt, told.reply, all_answers=True)
    elif isinstance(told, Compared):
        for side in (told.chosen, told.rejected):
            scribe.spoken(told.prompt, side)
    else:
        scribe.prompt(told)


def test_ten_thousand_damaged_rows_never_end_in_a_traceback(tmp_path: Path) -> None:
    """Read as each kind of row, and what can be read is spelt."""
    tokenizer = bpe_tokenizer()
    tokenizer.chat_template = TEMPLATE
    chance, scribe = random.Random(0), Scribe(tokenizer)
    whole = [
        {"prompt": "2+2=", "completion": " 4"},
        {"messages": say("hi", "hello", "bye", "farewell")},
        {"chosen": f"{HH} I am fine", "rejected": f"{HH} I am not"},
        {"prompt": "hi", "chosen": say("hi", "hello"), "rejected": say("hi", "what?"), "score_chosen": 9.0},
        {"prompt": say("hi"), "chosen": say("hello", first="assistant"), "rejected": say("what?", first="assistant")},
        {"real": say("hi", "hello")},
    ]
    told = {"read": 0, "unfit": 0, "no row": 0}
    path = tmp_path / "a.jsonl"
    for _ in range(10_000):
        row = damaged(chance.choice(whole), chance)
        if chance.random() < 0.1:
            line = bytearray(json.dumps(row).encode() + b"\n")
            for _ in range(chance.randint(1, 3)):
                line[chance.randrange(len(line))] = chance.randrange(256)
            written(path, bytes(line))
            try:
                found = [one for _, one in files.rows(str(path))]
            except UserError:
                told["no row"] += 1
                continue
        else:
            found = [row] if isinstance(row, dict) else []
        for one in found:
            for read in (shown, compared, asked):
                try:
                    spelt(scribe, read(one))
                    told["read"] += 1
                except Unfit:
                    told["unfit"] += 1
    assert all(count > 500 for count in told.values()), told
