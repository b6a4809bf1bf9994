"""Files and datasets as a domain: what every domain owes, what is set aside, what is kept on disk, every mistake."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Command, importable
from hub import hub_of_rows

from envs.labeller import LabellerConfig
from experiments.tiny import TEMPLATE, make
from experiments.train import build_learner, default_config
from llm import written
from llm.config import ModelConfig
from llm.data.chat import Scribe
from llm.data.config import DataConfig, SourceConfig
from llm.data.rows import Answers
from llm.models import load
from llm.table import WrittenTask
from llm.written import WrittenDomain
from unified_irl import conformance
from unified_irl.conformance import check_domain
from unified_irl.errors import UserError
from unified_irl.methods import METHODS
from unified_irl.trajectories import Trajectories

torch.set_num_threads(1)
NUM_ROWS = 40


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    make(folder, "llama", NUM_ROWS, 0)
    return folder


def source(*files: Path, **changes: Any) -> SourceConfig:
    return SourceConfig(files=tuple(map(str, files)), **changes)


def task(tiny: Path, cache: Path, **data: Any) -> WrittenTask:
    """Demonstrations and comparisons in conversations, with short answers."""
    usual: dict[str, Any] = {
        "demonstrations": source(tiny / "ultrachat.jsonl"),
        "preferences": source(tiny / "ultrafeedback.jsonl"),
        "completion_tokens": 12,
        "held_out": 0.2,
    }
    return WrittenTask(
        model=ModelConfig(path=str(tiny / "model")),
        data=DataConfig(**(usual | data)),
        cache=str(cache),
        num_examined=8,
    )


@pytest.fixture
def domain(tiny: Path, tmp_path: Path) -> WrittenDomain:
    return WrittenDomain(task(tiny, tmp_path), 0)


def texts(domain: WrittenDomain, behaviours: Trajectories) -> list[tuple[str, str]]:
    """What came before each answer, and the answer."""
    said = domain.scribe.tokenizer.decode
    rows = zip(behaviours.data["token"], behaviours.mask, strict=True)
    return [(said(token[: int(mask.nonzero()[0])]), said(token[mask])) for token, mask in rows]


def test_it_keeps_every_promise(domain: WrittenDomain) -> None:
    for row in (METHODS["aihf"], METHODS["self-play-aihf"]):
        assert check_domain(domain, [row]) == [f"{check.__name__} ({row.name})" for check in conformance.CHECKS]


def test_behaviours_are_what_the_files_hold(tiny: Path, domain: WrittenDomain) -> None:
    """Every row is learnt from or set aside; the last answer of each was chosen, and its prompt is its context."""
    rows = [json.loads(line)["messages"] for line in (tiny / "ultrachat.jsonl").read_text().splitlines()]
    shown, (aside, _) = domain.demonstrations, domain.aside
    assert shown is not None
    assert aside is not None
    found = texts(domain, shown.trajectories) + texts(domain, aside.trajectories)
    expected = [
        ("".join(f"<|turn|>{one['role']}\n{one['content']}<|over|>\n" for one in row[:-1]) + "<|turn|>assistant\n",
         f"{row[-1]['content']}<|over|>")
        for row in rows
    ]  # fmt: skip
    assert sorted(found) == sorted(expected)
    for side in (shown.trajectories, domain.preferences.first, domain.preferences.second):  # type: ignore[union-attr]
        contexts = domain.contexts[side.context_id]
        asked = [row[:length] for row, length in zip(contexts.data["token"], contexts.data["length"], strict=True)]
        assert [prompt for prompt, _ in texts(domain, side)] == [domain.scribe.tokenizer.decode(one) for one in asked]


def test_comparisons_have_the_better_answer_first(domain: WrittenDomain) -> None:
    """A good answer of these files names what was asked about."""
    compared = domain.preferences
    assert compared is not None
    sides = [texts(domain, side) for side in (compared.first, compared.second)]
    for (asked, chosen), (again, rejected) in zip(*sides, strict=True):
        assert asked == again
        thing = asked.split("how do ")[1].split()[0]
        assert (thing in chosen, thing in rejected) == (True, False)


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """It likes answers that name what was asked about, and short ones a little."""
    source = (
        "def thing(prompts, answers):\n"
        "    says = [(p[-1]['content'].split()[2], a[0]['content']) for p, a in zip(prompts, answers)]\n"
        "    return [(thing in said) - 0.001 * len(said) for thing, said in says]\n"
    )
    importable(source, "knows", tmp_path, monkeypatch)
    return "knows:thing"


def test_a_judge_examines_and_answers(tiny: Path, tmp_path: Path, judge: str) -> None:
    """Against its own start every policy wins half the time; of two answers the judge chooses the one it likes."""
    sharp = LabellerConfig(rationality=float("inf"))
    world = WrittenDomain(replace(task(tiny, tmp_path), judge=judge, labeller=sharp), 0)
    assert (
        check_domain(world, [METHODS["aihf"]], somebody_answers=True)[-1]
        == f"{conformance.ANSWERS[-1].__name__} (aihf)"
    )
    parts = world.build(METHODS["aihf"])
    metrics = world.evaluate(parts.policy, parts.reward)
    assert metrics["score"] == pytest.approx(2 * metrics["win_rate"] - 1)
    assert 0.2 < metrics["win_rate"] < 0.8
    contexts = world.contexts[torch.arange(8).repeat(2)]
    own = parts.policy.sample(contexts, torch.Generator().manual_seed(0))
    assert parts.reward is not None
    asked = world.ask(own, parts.reward, 8, METHODS["aihf"].phases[0], 1.0, torch.Generator().manual_seed(0))
    assert asked is not None
    said = [[len(answer) for _, answer in texts(world, side)] for side in (asked.first, asked.second)]
    liked = [float(first < second) for first, second in zip(*said, strict=True)]
    assert asked.label.tolist() == liked, "an untaught model names nothing, so the shorter one wins"


def test_prompts_set_aside_are_never_learnt_from(domain: WrittenDomain) -> None:
    shown, compared = domain.aside
    assert shown is not None
    assert compared is not None
    everything = domain.asked.prompts
    asked = everything.part(domain.asked.num_learnt, len(everything))
    assert len(domain.contexts) + len(asked) == len(domain.asked.is_aside)
    seen = {tuple(one.tolist()) for one in domain.contexts[:].data["token"]}
    width = domain.contexts[:].data["token"].shape[1]
    for ids in (shown.trajectories.context_id, compared.first.context_id):
        assert bool((ids >= len(domain.contexts)).all())
    for one in asked[:].data["token"]:
        assert tuple(torch.nn.functional.pad(one, (0, width))[:width].tolist()) not in seen


def test_all_answers_of_a_conversation(tiny: Path, tmp_path: Path) -> None:
    shown = WrittenDomain(task(tiny, tmp_path, answers="all"), 0).demonstrations
    assert shown is not None
    mask = shown.trajectories.mask.int()
    assert ((mask[:, 1:] - mask[:, :-1]) == 1).sum(1).tolist() == [2] * len(shown)


def test_large_data_are_read_where_they_are_needed(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rounds of the same method, whether the data lie in memory or in their file."""
    said = {}
    for most in (2**24, 0):
        monkeypatch.setattr(written, "WHOLE", most)
        config = default_config("hf", "aihf")
        method = config.method.with_phases(rounds=2, batch_size=4, practice=2)
        method = replace(method, warm_start=replace(method.warm_start, rounds=2, batch_size=4))
        learner = build_learner("hf", replace(config, task=task(tiny, tmp_path), method=method))
        is_read = isinstance(learner.demonstrations.trajectories, Answers)  # type: ignore[union-attr]
        assert is_read == (most == 0)
        said[most] = [learner.round() for _ in range(4)]
    assert said[0] == said[2**24]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns(method: str, tiny: Path, tmp_path: Path, command: Command) -> None:
    """One command each, on short data; what is reported is finite, and tells the method's own data."""
    said = command(
        "train", "hf", method, "--model", tiny / "model", "--demonstrations", tiny / "ultrachat.jsonl",
        "--preferences", tiny / "ultrafeedback.jsonl", "--task.data.completion-tokens", 8, "--task.num-examined", 4,
        "--task.cache", tmp_path / "cache", "--method.phases.0.rounds", 2, "--method.warm-start.rounds", 2,
        "--method.phases.0.batch-size", 4, "--out", "it",
        *(("--method.phases.1.rounds", 2) if method == "rlhf" else ()),
    )  # fmt: skip
    assert said.code == 0
    final = json.loads(Path("it/result.json").read_text())["final"]
    assert {"score", "kl_to_start", "length", "ended", "demonstration_nll", "policy_accuracy"} <= set(final)
    assert ("reward_accuracy" in final) == (METHODS[method].reward != "none")


def test_tokens_are_kept_and_known_again(tiny: Path, tmp_path: Path) -> None:
    def folders() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (tmp_path / "tokens").glob("*/*")}

    first = WrittenDomain(task(tiny, tmp_path), 0).rows["demonstrations"].token_N.clone()
    kept = folders()
    assert len(kept) == 8, "tokens, prompts, places and a report, of demonstrations and of comparisons"
    again = WrittenDomain(task(tiny, tmp_path), 0)
    assert folders() == kept
    assert torch.equal(again.rows["demonstrations"].token_N, first)
    moved = tmp_path / "moved.jsonl"
    shutil.copy(tiny / "ultrachat.jsonl", moved)
    with moved.open("a") as file:
        file.write('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n')
    more = WrittenDomain(task(tiny, tmp_path, demonstrations=source(moved)), 0)
    assert len(more.rows["demonstrations"]) == NUM_ROWS + 1
    for path in (tmp_path / "tokens").glob("*/tokens.bin"):
        path.write_bytes(path.read_bytes()[:-4])
    mended = WrittenDomain(task(tiny, tmp_path), 0)
    assert torch.equal(mended.rows["demonstrations"].token_N, first)


def test_mixtures_and_limits(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Half of one file and all of another, told how many rows there were; the same half again, and another by seed."""
    mixed = source(tiny / "ultrachat.jsonl", tiny / "ultrafeedback.jsonl", shares=(0.5, 1.0))
    one, same, other = (
        WrittenDomain(task(tiny, tmp_path, demonstrations=mixed, data_seed=seed), 0).rows["demonstrations"]
        for seed in (0, 0, 1)
    )
    assert NUM_ROWS * 1.2 < len(one) < NUM_ROWS * 1.8
    assert torch.equal(one.token_N, same.token_N)
    assert not torch.equal(one.token_N, other.token_N)
    few = WrittenDomain(task(tiny, tmp_path, demonstrations=source(tiny / "ultrachat.jsonl", most=7)), 0)
    assert len(few.rows["demonstrations"]) == 7
    capsys.readouterr()
    middle = int(one.length_R.float().mean())
    both = source(tiny / "ultrachat.jsonl", tiny / "ultrafeedback.jsonl")
    short = WrittenDomain(task(tiny, tmp_path, demonstrations=both, max_tokens=middle), 0)
    assert len(short.rows["demonstrations"]) == NUM_ROWS
    assert capsys.readouterr().err.splitlines()[:2] == [
        f"demonstrations: 0 of {NUM_ROWS} rows of {tiny / 'ultrachat.jsonl'}; {NUM_ROWS} have more than {middle} "
        f"tokens, or {middle} before the answer",
        f"demonstrations: {NUM_ROWS} of {NUM_ROWS} rows of {tiny / 'ultrafeedback.jsonl'}",
    ]


def test_rows_of_the_hub_as_they_arrive(tiny: Path, tmp_path: Path) -> None:
    """With a limit, no more of a large dataset comes over the line than is needed; an untrue name is a sentence."""
    lines = (tiny / "ultrachat.jsonl").read_bytes()
    words = [
        "train", "hf", "bc", "--model", tiny / "model", "--demonstrations", "somebody/rows",
        "--task.data.allow-download", "--task.data.stream", "--task.data.demonstrations.most", 20,
        "--task.cache", tmp_path / "cache", "--task.data.completion-tokens", 12, "--method.phases.0.rounds", 1,
    ]  # fmt: skip
    with hub_of_rows(lines * (2**27 // len(lines))) as (address, asked_for):
        there = os.environ | {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}

        def run(*more: Any) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "experiments.cli", *map(str, [*words, *more])]
            return subprocess.run(command, env=there, capture_output=True, text=True)

        done = run("--out", tmp_path / "run")
        assert done.returncode == 0, done.stderr
        assert "demonstrations: 20 of 20 rows of somebody/rows" in done.stderr
        assert 0 < sum(asked_for) < 2**26
        refused = run("--task.data.demonstrations.split", "nowhere", "--out", tmp_path / "no")
    assert refused.returncode == 2
    assert "The dataset somebody/rows broke off after row 0: " in refused.stderr
    assert "Traceback" not in refused.stderr


def test_texts_that_begin_alike(tiny: Path, tmp_path: Path) -> None:
    """HH's layout: conversations as text, the prompt shared by both sides. They end with the tokenizer's end."""
    world = WrittenDomain(task(tiny, tmp_path, demonstrations=source(), preferences=source(tiny / "hh.jsonl")), 0)
    assert world.preferences is not None
    asked, answer = texts(world, world.preferences.first)[0]
    assert asked.endswith("\n\nAssistant:")
    assert answer.startswith(" ")
    assert answer.endswith("<|over|>")
    assert world.demonstrations is None


def test_the_template_may_come_from_a_file(tiny: Path, tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    template.write_text(TEMPLATE.replace("<|turn|>", "# "))
    world = WrittenDomain(task(tiny, tmp_path, chat_template_file=str(template)), 0)
    assert world.preferences is not None
    assert texts(world, world.preferences.first)[0][0].startswith("# user\n")


def test_answers_end_in_one_way(tiny: Path, tmp_path: Path) -> None:
    """A template that ends a message with a token of its own does not go together with plain texts."""
    template = tmp_path / "template.jinja"
    template.write_text(TEMPLATE.replace("<|over|>", "<|endoftext|>"))
    mixed = task(tiny, tmp_path, chat_template_file=str(template), preferences=source(tiny / "hh.jsonl"))
    with pytest.raises(UserError, match="some sources hold conversations and others plain texts"):
        WrittenDomain(mixed, 0)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"--model": None}, "Name a model: --model takes a folder"),
        ({"--model": "nowhere/at-all"}, "There is no model nowhere/at-all on this machine"),
        ({"--demonstrations": None, "--preferences": None}, "There is nothing to learn from: name files or datasets"),
        ({"--preferences": None}, "Method 'aihf' learns from preferences, but the task holds none"),
        ({"--demonstrations": "nowhere.jsonl"}, "There is no file or folder nowhere.jsonl"),
        ({"--preferences": "ultrachat.jsonl"}, "row 1, has the columns prompt, prompt_id, messages; expected prompt"),
        ({"--task.data.max-tokens": 5}, "No row is left: demonstrations: 0 of 40 rows of"),
        ({"--task.data.completion-tokens": 256}, "completion_tokens is 256, but the model's context is 256 tokens"),
        ({"--task.data.held-out": 1}, "held_out is 1.0; expected a share above 0 and below 1."),
        ({"--task.data.demonstrations.shares": "0.5 0.5"}, "2 shares are given for 1 files; expected one for each"),
        ({"--task.data.demonstrations.shares": 2}, "shares hold 2.0; expected numbers above 0 and at most 1."),
        ({"--task.data.demonstrations.most": -1}, "most is -1; expected 0 or more."),
        ({"--task.data.chat-template-file": "nowhere.jinja"}, "The chat template nowhere.jinja cannot be read:"),
        ({"--method.phases.0.queries": 3}, "this task has nobody to ask: name a judge (--task.judge)"),
        ({"--task.judge": "nowhere:judge"}, "There is no function nowhere:judge: No module named 'nowhere'."),
        ({"--demonstrations": "owner/rows", "--task.data.stream": ""}, "rows can arrive from the hub only if data."),
        ({"--task.judge": "./nowhere"}, "There is no folder ./nowhere; expected that of a model"),
    ],
)  # fmt: skip
def test_each_mistake_has_its_sentence(flags: dict[str, Any], sentence: str, tiny: Path, command: Command) -> None:
    for path in tiny.iterdir():
        Path(path.name).symlink_to(path)
    usual = {"--model": "model", "--demonstrations": "ultrachat.jsonl", "--preferences": "ultrafeedback.jsonl",
             "--task.cache": "cache", "--task.data.completion-tokens": 8, "--task.num-examined": 4,
             "--method.warm-start.rounds": 1, "--out": "it"}  # fmt: skip
    words = [
        word for name, value in (usual | flags).items() if value is not None for word in (name, *str(value).split())
    ]
    said = command("train", "hf", "aihf", *words)
    assert said.code == 2
    assert sentence in said.sentence
    assert not Path("it/result.json").exists()


def test_an_answer_of_no_tokens_is_its_end(tiny: Path) -> None:
    _, tokenizer = load(ModelConfig(path=str(tiny / "model")))
    scribe = Scribe(tokenizer)
    spoken = scribe.spoken((("user", "?"),), (("assistant", ""),))
    assert [spoken.tokens[begin:end] for begin, end in spoken.answers] == [[scribe.end]]
