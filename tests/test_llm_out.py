"""What leaves a language run: folders that transformers, peft and TRL read, scores, and answers in the terminal."""

from __future__ import annotations

import importlib.util
import io
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Command, Refused
from hub import hub
from peft import AutoPeftModelForCausalLM
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from experiments import cli
from experiments.language_runs import LanguageRun, load_language_run
from experiments.scoring import Question, questions, scored
from experiments.tiny import make
from llm.config import ModelConfig
from llm.judges import Classifier, RewardJudge

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    make(folder, "llama", 40, 0)
    return folder


Trained = Callable[..., Path]


@pytest.fixture(scope="module")
def trained(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A few rounds of a method from conversations, once for every choice of settings."""
    made: dict[tuple[str, ...], Path] = {}

    def run(method: str, *flags: str) -> Path:
        if (method, *flags) not in made:
            place = tmp_path_factory.mktemp("run") / "it"
            words = [
                "train", "hf", method, "--model", tiny / "model", "--demonstrations", tiny / "ultrachat.jsonl",
                "--preferences", tiny / "ultrafeedback.jsonl", "--task.cache", tiny / "cache",
                "--task.data.completion-tokens", 12, "--task.num-examined", 4, "--method.phases.0.rounds", 3,
                "--method.warm-start.rounds", 20, "--method.policy-descent.learning-rate", 3e-3,
                "--method.reward-descent.learning-rate", 3e-3, "--method.phases.0.batch-size", 8, "--out", place,
                *flags,
            ]  # fmt: skip
            assert cli.run(list(map(str, words))) == 0
            made[(method, *flags)] = place
        return made[(method, *flags)]

    return run


SEQUENCE = ("--task.reward.level", "sequence")
LORA = ("--task.model.lora.rank", "4")


def likelihoods(model: PreTrainedModel, token: Tensor) -> Tensor:
    """log π of every token but the first, by the model's own logits."""
    with torch.no_grad():
        said = model(token).logits.log_softmax(-1)[:, :-1]
    return said.gather(-1, token[:, 1:, None]).squeeze(-1)


def shown(learnt: LanguageRun) -> Any:
    demonstrations = learnt.domain.demonstrations
    assert demonstrations is not None
    return demonstrations.trajectories[:6]


@pytest.mark.parametrize("flags", [(), LORA])
def test_a_policy_becomes_a_model_of_its_own(
    flags: tuple[str, ...], trained: Trained, tmp_path: Path, command: Command
) -> None:
    """The same probabilities, and it stops where it learnt to stop; its card runs as written."""
    run = trained("aihf", *SEQUENCE, *flags)
    assert command("export", run, tmp_path / "out").code == 0
    place, learnt = tmp_path / "out/policy", load_language_run(run, "latest")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(place), AutoTokenizer.from_pretrained(place)
    behaved = shown(learnt)
    ours = learnt.policy.log_prob(behaved)[:, 1:]
    theirs = likelihoods(model, behaved.data["token"]) * behaved.mask[:, 1:]
    torch.testing.assert_close(theirs, ours.detach(), atol=1e-5, rtol=0)
    messages = [{"role": "user", "content": "how do bees work?"}]
    asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    said = model.generate(**asked, do_sample=False, max_new_tokens=12)[0, asked["input_ids"].shape[1] :]
    from experiments.talk import Talk

    spoken = tokenizer.decode(said[said != learnt.domain.voices.manner.end]).strip()
    assert spoken == Talk(learnt, True, "", 0).answer("how do bees work?")
    card = (place / "README.md").read_text()
    assert card.startswith(
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- unified-irl\n- aihf\n---"
    )
    (python,) = re.findall(r"```python\n(.*?)```", card, flags=re.S)
    subprocess.run([sys.executable, "-c", python], cwd=place, check=True, capture_output=True)


def test_an_adapter_goes_to_peft(trained: Trained, tmp_path: Path, command: Command) -> None:
    run = trained("aihf", *SEQUENCE, *LORA)
    assert command("export", run, tmp_path / "out", "--form", "adapter").code == 0
    learnt, model = load_language_run(run, "latest"), AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out/adapter")
    behaved = shown(learnt)
    theirs = likelihoods(model, behaved.data["token"]) * behaved.mask[:, 1:]
    torch.testing.assert_close(theirs, learnt.policy.log_prob(behaved)[:, 1:].detach(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("flags", [(), LORA])
def test_a_reward_becomes_a_classifier(
    flags: tuple[str, ...], trained: Trained, tmp_path: Path, command: Command
) -> None:
    """The same number for every answer, however the rows of a batch are padded."""
    run = trained("aihf", *SEQUENCE, *flags)
    assert command("export", run, tmp_path / "out").code == 0
    learnt, place = load_language_run(run, "latest"), tmp_path / "out/reward"
    assert learnt.reward is not None
    behaved = shown(learnt)
    ours = learnt.reward(behaved).sum(1).detach()
    assert float(ours.std()) > 1e-4, "a reward that has learnt something"
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(place), AutoTokenizer.from_pretrained(place)
    length = (behaved.mask * torch.arange(1, behaved.num_steps + 1)).amax(1)
    rows = [row[:end] for row, end in zip(behaved.data["token"], length, strict=True)]
    token = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id)
    with torch.no_grad():
        theirs = model(token, attention_mask=(token != tokenizer.pad_token_id).long()).logits[:, 0]
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("method", "flags", "why"),
    [
        ("aihf", (), "no reward: it pays at every token (reward.level token)"),
        ("aihf", (*SEQUENCE, "--task.reward.bound", "3"), "no reward: it is squashed (reward.bound)"),
        ("dpo", (), "no reward: the method has no reward of its own"),
    ],
)
def test_rewards_that_no_classifier_can_be(
    method: str, flags: tuple[str, ...], why: str, trained: Trained, tmp_path: Path, command: Command
) -> None:
    said = command("export", trained(method, *flags), tmp_path / "out")
    assert said.code == 0
    assert why in said.out
    assert [one.name for one in (tmp_path / "out").iterdir()] == ["policy"]


def test_exports_are_refused_with_a_sentence(
    trained: Trained, tmp_path: Path, command: Command, refused: Refused
) -> None:
    run = trained("dpo")
    assert command("export", run, "out").code == 0
    assert "out already holds policy. Choose another directory, or say --overwrite." in refused("export", run, "out")
    assert command("export", run, "out", "--overwrite", "--which", "best").code == 0
    said = command("export", run, "other", "--form", "adapter")
    assert (said.code, "trained all weights and no adapter" in said.sentence) == (2, True)
    said = command("export", run, "pushed", "--push", "nobody/nothing")
    assert (said.code, "but could not be put into nobody/nothing:" in said.sentence) == (2, True)
    assert Path("pushed/policy/model.safetensors").is_file(), "what was written stays"


def test_a_policy_is_put_on_a_hub(trained: Trained, tmp_path: Path) -> None:
    """Every file arrives as it was written; without a token nothing does, in a sentence."""
    command = [sys.executable, "-m", "experiments.cli", "export", str(trained("dpo")), str(tmp_path / "out")]
    push = ["--push", "somebody/something", "--overwrite"]
    with hub() as (address, files):
        there = os.environ | {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
        there.pop("HF_TOKEN", None)
        said = subprocess.run([*command, *push], env=there, capture_output=True, text=True)
        assert (said.returncode, files) == (2, {})
        assert "but could not be put into somebody/something: Client error '401" in said.stderr
        said = subprocess.run([*command, *push], env=there | {"HF_TOKEN": "hf_secret"}, capture_output=True, text=True)
        assert said.returncode == 0, said.stderr
    policy = tmp_path / "out/policy"
    assert files == {one.name: one.read_bytes() for one in policy.iterdir()}
    assert "model.safetensors" in files


def test_a_page_of_what_it_says(trained: Trained, tmp_path: Path, command: Command) -> None:
    """Nobody knows the truth about files, so the page shows what the run has learnt to believe."""
    said = command("samples", trained("dpo"), "--count", 3, "--out", tmp_path / "page.md")
    assert said.code == 0
    page = (tmp_path / "page.md").read_text()
    assert "| prompt |  | completion | judge | learnt reward |" in page
    lines = [line.removesuffix(" |") for line in page.splitlines() if line.startswith("| ")][2:]
    assert [line.split(" | ")[1] for line in lines] == ["at first", "now", "now, likeliest"] * 3
    assert all("how do " in line.split(" | ")[0] for line in lines[::3])
    for line in lines:  # what an untaught model says may hold bars
        _, judged, learnt = line.rsplit(" | ", 2)
        assert judged == "–"
        assert math.isfinite(float(learnt))


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_scores_by_hand(tmp_path: Path) -> None:
    """A judge that counts letters: pairs, one among four, ties, and answers it cannot tell apart."""

    def judge(answers: Any) -> list[float]:
        return [float(len(reply)) for _, reply in answers]

    rows = [
        {"subset": "chat", "prompt": "p", "chosen": "long", "rejected": "no"},
        {"subset": "chat", "prompt": "p", "chosen": "no", "rejected": "long"},
        {"subset": "chat", "prompt": "p", "chosen": "as", "rejected": "of"},
        {"subset": "four", "prompt": "p", "chosen": ["long"], "rejected": ["a", "b", "c"]},
        {"subset": "four", "prompt": "p", "chosen": ["b"], "rejected": ["a", "c", ""]},
        {"subset": "Ties", "prompt": "p", "chosen": ["aaaa", "aaa"], "rejected": ["aa", "a"]},
        {"subset": "Ties", "prompt": "p", "chosen": ["aaaa", "a"], "rejected": ["aa"]},
    ]
    found = scored(judge, questions(str(write(tmp_path / "a.jsonl", rows)), "train", allow_download=False))
    assert [(row["subset"], row["count"]) for row in found] == [
        ("chat", 3),
        ("four", 2),
        ("Ties", 2),
        ("all of them", 7),
    ]
    assert [row["score"] for row in found] == pytest.approx([0.5, (1 + 1 / 3) / 2, 0.5, (1.5 + 4 / 3 + 1) / 7])
    assert [row["chance"] for row in found] == pytest.approx([0.5, 0.25, 0.0, 2 / 7])
    assert all(row["low"] < row["score"] < row["high"] for row in found)
    assert Question("x", "p", ("a",), ("b", "c", "d")).score([1.0], [1.0, 1.0, 0.0]) == pytest.approx(1 / 3)


def test_a_run_its_classifier_and_a_function_judge(
    trained: Trained, tiny: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run and the classifier made of it say the same; a function may be anybody's."""
    run = trained("aihf", *SEQUENCE)
    assert command("export", run, tmp_path / "out").code == 0
    learnt = load_language_run(run, "latest")
    assert learnt.learnt_reward is not None
    asked = [((("user", "how do bees work?"),), (("assistant", f"{thing} work."),)) for thing in ("bees", "maps")]
    ours = RewardJudge(learnt.learnt_reward, learnt.domain.spelt)(asked)
    theirs = Classifier(ModelConfig(path=str(tmp_path / "out/reward")), "cpu")(asked)
    assert ours == pytest.approx(theirs, abs=1e-5)
    file = tiny / "ultrafeedback.jsonl"
    outs = []
    for judge in (run, tmp_path / "out/reward"):
        said = command("score", judge, file, "--out", "scores.json")
        assert said.code == 0
        outs.append(json.loads(Path("scores.json").read_text())["subsets"])
    assert outs[0] == outs[1]
    (tmp_path / "knows.py").write_text(
        "def thing(prompts, answers):\n"
        "    return [a[0]['content'].split()[0] in p[0]['content'] for p, a in zip(prompts, answers)]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert command("score", "knows:thing", file, "--out", "scores.json").code == 0
    assert json.loads(Path("scores.json").read_text())["subsets"][0]["score"] == 1.0


@pytest.mark.parametrize(
    ("judge", "content", "sentence"),
    [
        ("math:nothing", {}, "There is no function math:nothing: module 'math' has no attribute 'nothing'."),
        ("no_such_module:f", {}, "There is no function no_such_module:f: No module named 'no_such_module'."),
        ("math:hypot", {}, "math:hypot failed on 2 prompts and answers: TypeError: must be real number"),
        ("builtins:zip", {}, "builtins:zip gave something that is no number"),
        ("itertools:chain", {}, "itertools:chain gave 4 numbers for 2 answers; expected as many."),
        ("MODEL", {}, "they are of no classifier. Name a model that was trained as a reward."),
        ("./nowhere", {}, "There is no folder ./nowhere; expected that of a model"),
        ("DPO-BC", {}, "is a run of bc, which learns no reward; give another."),
        ("math:fsum", {"chosen": ["a"], "rejected": "b"}, "row 1, has a list of chosen answers; expected"),
    ],
)  # fmt: skip
def test_judges_and_files_that_cannot_be_used(
    judge: str, content: dict[str, Any], sentence: str, trained: Trained, tiny: Path, tmp_path: Path, command: Command
) -> None:
    names = {"MODEL": tiny / "model"} | ({"DPO-BC": trained("bc")} if judge == "DPO-BC" else {})
    row = {"prompt": "p", "chosen": "a", "rejected": "b"} | content
    said = command("score", names.get(judge, judge), write(tmp_path / "a.jsonl", [row]))
    assert said.code == 2
    assert sentence in said.sentence


def test_one_can_talk_to_it(trained: Trained, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversation goes on until an empty line; what does not fit any more is said."""
    run = trained("aihf", *SEQUENCE)
    lines = ["how do bees work?", "and maps?", "", "how do bees work?", "x " * 300, "how do bees work?"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines) + "\n"))
    said = command("chat", run, "--greedy")
    assert said.code == 0
    answers = [one.strip() for one in said.out.split("> ")[1:]]
    assert len(answers) == 7
    assert answers[0] == answers[3] == answers[5]
    assert answers[2] == ""
    assert "does not fit into the model's context of 256" in answers[4]
    assert command("chat", run, "--system", "be kind").code == 0


def test_the_harness_measures_an_export(trained: Trained, tmp_path: Path, command: Command) -> None:
    """A task of one's own, where lm-evaluation-harness is installed; elsewhere a sentence says how to come by it."""
    assert command("export", trained("aihf", *SEQUENCE), tmp_path / "out").code == 0
    rows = [{"question": f"how do {thing} work?", "right": f"{thing} work."} for thing in ("bees", "maps", "trains")]
    file = write(tmp_path / "own" / "a.jsonl", rows)
    task = {"task": "own", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(file)}},
            "test_split": "test", "output_type": "multiple_choice", "doc_to_text": "{{question}}",
            "doc_to_choice": "{{[right, 'clocks rest.']}}", "doc_to_target": 0,
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]}  # fmt: skip
    (tmp_path / "own" / "own.yaml").write_text(json.dumps(task))
    words = ["harness", tmp_path / "out/policy", "--tasks", "own", "--include", tmp_path / "own", "--out", "it.json"]
    said = command(*words)
    if importlib.util.find_spec("lm_eval") is None:
        assert (said.code, "pip install 'unified-irl[harness]'" in said.sentence) == (2, True)
        return
    assert said.code == 0
    (row,) = json.loads(Path("it.json").read_text())["results"]
    assert (row["task"], row["metric"], 0.0 <= row["value"] <= 1.0) == ("own", "acc", True)
    assert command("harness", tmp_path / "out/policy", "--tasks", "other", "--include", tmp_path / "own").code == 2


@pytest.mark.slow
def test_stock_trl_goes_on_with_the_policy(trained: Trained, tiny: Path, tmp_path: Path, command: Command) -> None:
    """DPOTrainer takes the exported folder as it is, where TRL is installed."""
    pytest.importorskip("trl")
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    assert command("export", trained("aihf", *SEQUENCE), tmp_path / "out").code == 0
    place = tmp_path / "out/policy"
    rows = [json.loads(line) for line in (tiny / "ultrafeedback.jsonl").read_text().splitlines()]
    data = Dataset.from_list([{"chosen": row["chosen"], "rejected": row["rejected"]} for row in rows])
    settings = DPOConfig(output_dir=str(tmp_path / "trl"), max_steps=3, per_device_train_batch_size=4, use_cpu=True,
                         report_to="none", bf16=False, gradient_checkpointing=False)  # fmt: skip
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(place), args=settings, train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(place),
    )  # fmt: skip
    assert trainer.train().global_step == 3
