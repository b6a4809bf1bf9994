"""The command line: every verb does its work at a tiny size, and every mistake gets a sentence and exit code 2.

Most commands run in this process, through the same `main` as the console script; what is bad about a machine (a full
disk, a read-only one, Ctrl-C, another process) is made so for real.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pickle
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Command, contents
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from experiments import cli
from experiments.train import build_learner, config_to_json, default_config
from unified_irl import checkpoint, run
from unified_irl.errors import Diverged
from unified_irl.methods import METHODS
from unified_irl.rundir import RunDirectory, read_metrics

CONSOLE = str(Path(sys.executable).with_name("unified-irl"))
WORLD = (
    "--task.num-nodes", "8", "--task.horizon", "5", "--task.num-demonstrations", "8", "--task.num-preferences", "8",
)  # fmt: skip
TINY = (*WORLD, "--method.phases.0.rounds", "12", "--run.checkpoint-every", "4", "--run.evaluate-every", "4",
        "--tracking.progress", "quiet")  # fmt: skip
CELLS = ("task.num-nodes=8", "task.horizon=5", "task.num-demonstrations=8", "method.phases.0.rounds=6",
         "run.evaluate-every=3")  # fmt: skip


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, for copying."""
    path = tmp_path_factory.mktemp("trained") / "run"
    done = subprocess.run([CONSOLE, "train", "walks", "aihf", *TINY, "--out", path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "best score" in done.stdout
    assert f"everything is in {path}" in re.sub(r"\s+", " ", done.stdout)
    return path


@pytest.fixture
def finished(trained_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained_once, tmp_path / "finished"))


@pytest.fixture
def unfinished(finished: Path) -> Path:
    """The same run, killed just before it wrote its result."""
    (finished / "result.json").unlink()
    return finished.rename(finished.with_name("unfinished"))


def result_of(path: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((path / "result.json").read_text())
    del result["seconds"]
    return result


# What works.


def test_without_a_verb_the_verbs_are_explained(command: Command) -> None:
    said = command()
    assert said.code == 0
    assert said == command("--help") == command("help")
    assert all(re.search(rf"^  {verb} +\w", said.out, re.MULTILINE) for verb in cli.VERBS)


def test_the_tables(command: Command) -> None:
    methods, tasks = command("methods"), command("tasks")
    assert methods.code == tasks.code == 0
    assert all(name in methods.out for name in METHODS)
    assert "Bradley-Terry" in methods.out
    assert "walks" in tasks.out


@pytest.mark.parametrize("verb", ["train", "resume", "evaluate", "collect", "bench"])
def test_help_for_a_verb_whose_names_are_missing(verb: str, command: Command) -> None:
    said = command(verb, "--help")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(f"usage: unified-irl {verb} ")


def test_train_resume_and_evaluate(command: Command) -> None:
    trained = command("train", "walks", "aihf", *TINY, "--seed", 3)
    assert (trained.code, trained.err) == (0, "")
    path = Path("runs/walks-aihf-3")
    result = result_of(path)
    assert result["rounds"] == 12
    assert [row["step"] for row in read_metrics(path)] == list(range(1, 13))
    stored = json.loads((path / "environment.json").read_text())["command"]
    assert stored == ["unified-irl", "train", "walks", "aihf", *TINY, "--seed", "3"]

    before = contents(path)
    assert f"best score {result['best']['score']:.4f} in round {result['best']['round']}" in trained.out
    again = command("resume", path)
    assert again.code == 0
    assert contents(path) == before, "resuming a finished run only shows its result"
    for which, score in (("latest", result["final"]["score"]), ("best", result["best"]["score"])):
        examined = command("evaluate", path, "--which", which)
        assert examined.code == 0
        assert re.search(rf"score +│ +{score:.4f} ", examined.out)
    assert contents(path) == before


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains(method: str, command: Command) -> None:
    few = ["--method.warm-start.rounds", 3] if METHODS[method].init == "clone" else []
    for number in range(len(METHODS[method].phases)):
        few += [f"--method.phases.{number}.rounds", 3]
    said = command("train", "walks", method, *WORLD, *few, "--tracking.progress", "quiet", "--out", "it")
    assert said.code == 0
    assert result_of(Path("it"))["final"]["score"] != 0.0


def test_what_collect_writes_is_learnt_from_like_what_is_drawn(command: Command) -> None:
    collected = command("collect", "walks", "data", *WORLD, "--seed", 5)
    assert collected.code == 0
    for kind in ("demonstrations", "preferences"):
        assert f"8 {kind} written to data/{kind}.safetensors" in collected.out
    files = [f"--task.{kind}-file=data/{kind}.safetensors" for kind in ("demonstrations", "preferences")]
    assert command("train", "walks", "aihf", *TINY, "--seed", 5, "--out", "drawn").code == 0
    assert command("train", "walks", "aihf", *TINY, "--seed", 5, *files, "--out", "read").code == 0
    assert result_of(Path("drawn")) == result_of(Path("read"))


def test_compare_goes_on_with_what_is_missing(command: Command) -> None:
    words = ["compare", "--methods", "bc", "aihf", "--seeds", 2, "--workers", 1, "--set", *CELLS, "--out", "it"]
    said = command(*words)
    assert said.code == 0
    assert [line.split("  ")[0] for line in said.err.splitlines()] == [f"cell {n}/4" for n in range(1, 5)]
    for name in ("results.json", "table.md", "walks-scores.png", "walks-curves.png"):
        assert Path("it", name).stat().st_size > 100
    record = json.loads(Path("it/results.json").read_text())
    assert [(row["method"], row["seed"]) for row in record["cells"]] == [("bc", 0), ("bc", 1), ("aihf", 0), ("aihf", 1)]
    assert record["command"] == " ".join(map(str, ["unified-irl", *words]))
    assert all(row["rounds"] == 6 for row in record["cells"])
    before = {path: path.stat().st_mtime_ns for path in Path("it/cells").glob("*/**/*")}
    again = command(*words)
    assert (again.code, again.err) == (0, "")
    assert {path: path.stat().st_mtime_ns for path in Path("it/cells").glob("*/**/*")} == before
    with files_of_at_most(200):
        said = command(*words)
    assert (said.code, said.out) == (2, "")
    assert said.err == "error: it/results.json: File too large. Mend that, and try again.\n"
    assert json.loads(Path("it/results.json").read_text())["cells"] == record["cells"]


def test_compare_tunes_on_other_seeds(command: Command) -> None:
    """Steps of next to nothing lose to steps that learn, and the cells compared are those of the winner."""
    words = [
        "compare",
        "--methods",
        "bc",
        "dpo",
        "--seeds",
        2,
        "--workers",
        1,
        "--set",
        *CELLS,
        "--out",
        "it",
        "--tune",
    ]
    tiny, good = "method.policy-descent.learning-rate=1e-9", "method.policy-descent.learning-rate=0.05"
    words += ["--tune", f"bc {tiny} / {good}", f"dpo {good} method.beta=0.5 / {tiny} method.beta=0.5"]
    said = command(*words)
    assert said.code == 0
    assert [line.split("  ")[1] for line in said.err.splitlines()] == [
        *(f"walks-{name}-try-{number}-1000" for name in ("bc", "dpo") for number in (1, 2)),
        *(f"walks-{name}-{seed}" for name in ("bc", "dpo") for seed in (0, 1)),
    ]
    record = json.loads(Path("it/results.json").read_text())
    for row in record["tuning"]:
        scores = {" ".join(one["settings"]): one["score"] for one in row["tried"]}
        assert " ".join(row["chosen"]) == max(scores, key=scores.__getitem__)
    assert [row["chosen"] for row in record["tuning"]] == [[good], [good, "method.beta=0.5"]]
    for row in record["cells"]:
        config = json.loads(Path("it", row["directory"], "config.json").read_text())
        assert config["method"]["policy_descent"]["learning_rate"] == 0.05
    assert f"- walks bc: {good} of {tiny} (" in Path("it/table.md").read_text()
    again = command(*words)
    assert (again.code, again.err) == (0, "")


@pytest.mark.parametrize(
    ("tune", "sentence"),
    [
        (["bc task.horizon=4 / task.horizon=4", "dpo"], "'bc task.horizon=4 / task.horizon=4' was given."),
        (["bc seed=1 / seed=2"], "compare --tune says nothing of dpo; tune every method, or none."),
        (["bc seed=1 / seed=2", "bc seed=1 / seed=2"], "compare --tune names a method twice;"),
        (["bc seed=1 / seed=2", "irft seed=1 / seed=2"], "compare --tune says nothing of dpo; tune every method"),
        (["bc seed=1 / seed=2", "dpi seed=1 / seed=2"], "There is no method called 'dpi'. Did you mean dpo"),
        (
            ["bc task.horizon=3 / task.horizon=4", "dpo task.horizon=3 / task.horizon=4 / task.horizon=5"],
            "compare --tune gives unequal numbers of tries (bc 2, dpo 3); give every method as many.",
        ),
        (["bc seed=1 / seed=2", "dpo seed=1 / seed=2"], "seed=1 is set, but seeds are set by --seeds"),
        (["bc horizon / x=2", "dpo x=1 / x=2"], "compare --tune takes KEY=VALUE"),
    ],
)
def test_tuning_that_cannot_be_fair_is_refused(tune: list[str], sentence: str, refused: Callable[..., str]) -> None:
    assert sentence in refused("compare", "--methods", "bc", "dpo", "--tune", *tune)


def test_demo_shrunk_with_a_method_that_fails(command: Command) -> None:
    """What failed is said, what did not is shown, and the exit code tells them apart."""
    said = command("demo", "--tasks", "walks", "--methods", "ml-irl", "bc", "--seeds", 1, "--workers", 1, "--set",
                   *CELLS, "method.reward-descent.learning-rate=1e30")  # fmt: skip
    assert said.code == 1
    assert re.search(r"walks-ml-irl-0  FAILED: Round 2 \(phase 'irl'\): loss is ", said.err)
    assert re.search(r"^failed: walks ml-irl seed 0: Round 2 ", said.out, re.MULTILINE)
    assert re.search(r"│ ml-irl │ +failed │", said.out)
    assert re.search(r"│ bc     │ +0\.\d+ │", said.out)
    assert "runs/demo/walks-scores.png" in said.out
    (failure,) = Path("runs/demo/cells").glob("*/failure.json")
    assert json.loads(failure.read_text())["failure"].startswith("Round 2")
    assert Path("runs/demo/report.html").is_file()


def test_settings_for_one_task_of_a_comparison(command: Command) -> None:
    said = command("compare", "--tasks", "walks", "pendulum", "--methods", "bc", "--seeds", 1, "--workers", 1, "--set",
                   *(f"walks:{one}" for one in CELLS), "pendulum:method.phases.0.rounds=2",
                   "pendulum:task.num-examined=1", "--out", "both")  # fmt: skip
    assert said.code == 0
    config = {path.name.split("-")[0]: json.loads((path / "config.json").read_text())
              for path in Path("both/cells").iterdir() if path.is_dir()}  # fmt: skip
    assert config["walks"]["task"]["num_nodes"] == 8
    assert [one["method"]["phases"][0]["rounds"] for one in (config["walks"], config["pendulum"])] == [6, 2]


def test_doctor_finds_all_well(command: Command) -> None:
    said = command("doctor")
    assert said.code == 0
    assert said.out.endswith("all is well\n")
    assert "'unified_irl' is ours" in said.out
    assert "FAIL" not in said.out


def test_doctor_says_what_is_wrong(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from experiments.verbs import doctor

    monkeypatch.setattr(doctor, "CHECKS", {"names": doctor.names})
    monkeypatch.setattr(doctor, "PACKAGES", ("unified_irl", "json"))
    said = command("doctor")
    assert said.code == 1
    assert re.search(r"FAIL  'import json' finds \S+, which belongs to .* and shadows ours", said.out)


def test_bench_tiny(command: Command) -> None:
    tiny = ["--num-nodes", 30, "--horizon", 4, "--rounds", 2, "--repeats", 1]
    said = command("bench", "core", *tiny, "--out", "bench.json")
    assert said.code == 0
    assert "ratio" in said.out
    shares = json.loads(Path("bench.json").read_text())["result"]["overhead"]["aihf"]["shares"]
    assert sum(shares.values()) == pytest.approx(1.0)


def test_help_appears_at_once_and_without_torch() -> None:
    """Under a second of wall-clock time, the best of three; the settings of a method are shown without any tensor."""
    for words in (["--help"], ["train", "walks", "aihf", "--help"]):
        seconds = []
        for _ in range(3):
            began = time.monotonic()
            done = subprocess.run([CONSOLE, *words], capture_output=True, text=True, check=True)
            seconds.append(time.monotonic() - began)
        assert min(seconds) < 1.0
        code = "import sys; from experiments.cli import main; sys.argv[1:] = {}\ntry: main()\nexcept SystemExit: pass\n"
        heavy = "assert not {'torch', 'transformers', 'mujoco', 'stable_baselines3', 'pydantic'} & set(sys.modules)"
        subprocess.run([sys.executable, "-c", code.format(words) + heavy], capture_output=True, check=True)
    assert "--method.phases.0.preference-sharpness FLOAT" in done.stdout
    assert "How sharply" in done.stdout or "κ in σ(κ ΔR)" in done.stdout


# Words and numbers that cannot be meant.


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("trian", "error: There is no verb called 'trian'. Did you mean train"),
        ("xyz", "error: There is no verb called 'xyz'. Known: bench, chat, collect,"),
        ("train", "error: 'train' needs TASK: unified-irl train TASK METHOD [flags]."),
        ("train walks", "error: 'train' needs METHOD: unified-irl train TASK METHOD [flags]."),
        ("train walk aihf", "error: There is no task called 'walk'. Did you mean walks"),
        ("train walks aifh", "error: There is no method called 'aifh'. Did you mean aihf"),
        ("train walks aihf --task.num-node 3", "Perhaps you meant: --task.num-nodes INT"),
        ("train walks aihf stray", "Unrecognized options: stray"),
        ("resume", "error: 'resume' needs RUN: unified-irl resume RUN"),
        ("resume it --faster", "error: '--faster' is not understood here; expected: unified-irl resume RUN."),
        ("methods --all", "error: '--all' is not understood here; expected: unified-irl methods [--worlds]."),
        ("evaluate it --which worst", "invalid choice 'worst' for argument '--which'. Expected one of ('latest',"),
        ("collect walks", "error: 'collect' needs DIRECTORY: unified-irl collect TASK DIRECTORY [flags]."),
        ("collect wolks data", "error: There is no task called 'wolks'. Did you mean walks"),
        ("bench cor", "error: There is no benchmark called 'cor'. Did you mean core"),
        ("compare --methods bc aihff", "error: There is no method called 'aihff'. Did you mean aihf"),
        ("compare --tasks wolks", "error: There is no task called 'wolks'. Did you mean walks"),
        ("compare --methods", "name at least one task and one method to compare."),
        ("compare --methods bc bc", "error: Several cells are called walks-bc-0, walks-bc-1,"),
        ("compare --seeds 0", "seeds is 0; expected 1 or more."),
        ("compare --variants bc2 --methods bc2", "error: compare --variants takes 'NAME=METHOD KEY=VALUE …'"),
        ("compare --set task.x='bc", "a quotation mark in ''bc' has no partner"),
        ("compare --variants bc2=bc --methods bc", "error: the variant bc2 does not stand among the methods"),
        ("compare --tune bc", "error: compare --tune takes 'NAME KEY=VALUE … / KEY=VALUE … / …' with different tries,"),
        ("compare --set beta", "compare --set takes KEY=VALUE, as in task.num-demonstrations=16; 'beta' was given."),
        ("compare --set wolks:beta=1", "compare --set wolks:beta=1: wolks is none of the tasks compared (walks)."),
        ("compare --set task.nodes=3", "Unrecognized options: --task.nodes"),
        ("compare --set task.num-nodes=1", "walks: num_nodes is 1; expected 2 or more."),
        ("compare --set seed=3", "error: seed=3 is set, but seeds are set by --seeds: it gives their number."),
    ],
)  # fmt: skip
def test_words_that_are_not_understood(words: str, sentence: str, refused: Callable[..., str]) -> None:
    assert sentence in refused(*words.split())


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("--task.num-nodes=1", "walks: num_nodes is 1; expected 2 or more."),
        ("--task.num-nodes=many", "Error parsing --task.num-nodes: invalid literal for int() with base 10: 'many'"),
        ("--task.num-neighbours=8", "walks: num_neighbours is 8; expected fewer than 8 nodes."),
        ("--task.num-goals=9", "walks: num_goals is 9, but the graph has 8 nodes."),
        ("--task.horizon=0", "walks: horizon is 0; expected 1 or more."),
        ("--task.graph-seed=-1", "walks: graph_seed is -1; expected 0 or more."),
        ("--task.goal-reward=inf", "walks: goal_reward is inf; expected a finite number."),
        ("--task.toll=nan", "walks: toll is nan; expected a finite number"),
        ("--task.temperature=inf", "walks: temperature is inf; expected a finite number"),
        ("--task.temperature=0", "walks: temperatures must be above 0."),
        ("--task.compared-temperatures=", "compared"),
        ("--task.demonstrated-share=1", "walks: demonstrated_share is 1.0; expected above 0 and below 1"),
        ("--task.policy-step=0", "walks: policy_step is 0.0; expected above 0 and at most 1."),
        ("--task.demonstrator.temperature=inf", "demonstrator: temperature is inf; expected a finite number"),
        ("--task.demonstrator.slips=1", "demonstrator: slips is 1.0; expected a probability"),
        ("--task.labeller.rationality=0", "labeller: rationality is 0.0; expected a number above 0, or inf."),
        ("--task.labeller.mistake=1.5", "labeller: mistake is 1.5; expected at least 0 and below 1."),
        ("--task.reward=tree", "invalid choice 'tree' for argument '--task.reward'. Expected one of ('free', 'linear'"),
        ("--method.beta=0", "beta is 0.0; expected a number above 0"),
        ("--method.beta=inf", "beta is inf; expected a finite number."),
        ("--method.gamma=1.1", "gamma is 1.1; expected a discount above 0 and at most 1."),
        ("--method.held-out=1", "held_out is 1.0; expected a share above 0 and below 1."),
        ("--method.reward=none", "but method 'aihf' has none."),
        ("--method.phases.0.rounds=0", "phase 'joint': rounds is 0; expected 1 or more."),
        ("--method.phases.0.batch-size=-1", "phase 'joint': batch_size is -1; expected 0 or more."),
        ("--method.phases.0.prompts=0", "phase 'joint': prompts is 0.0; expected a share above 0 and at most 1."),
        ("--method.phases.0.demonstration-weight=inf", "phase 'joint': demonstration_weight is inf; expected a finite"),
        ("--method.phases.0.preference-sharpness=inf", "phase 'joint': preference_sharpness is inf; expected a finite"),
        ("--method.regularisation.label-smoothing=0.5", "label_smoothing is 0.5; expected at least 0 and below 0.5."),
        ("--method.regularisation.clamp=nan", "regularisation: clamp is nan; expected 0 or more."),
        ("--method.reward-descent.learning-rate=inf", "learning_rate is inf; expected a finite number above 0."),
        ("--method.reward-descent.schedule=cosine", "a cosine schedule needs total_steps above warmup_steps (0)"),
        ("--method.reward-descent.max-grad-norm=-1", "max_grad_norm is -1.0; expected 0 or more."),
        ("--run.keep=0", "keep is 0; expected 1 or more."),
        ("--run.checkpoint-seconds=-1", "checkpoint_seconds is -1.0; expected 0 or more."),
        ("--run.explodes-above=nan", "explodes_above is nan; expected a number above 0."),
        ("--run.threads=0", "threads is 0; expected 1 or more."),
        ("--tracking.progress=loud", "invalid choice 'loud' for argument '--tracking.progress'"),
        ("--task.num-demonstrations=0", "error: Method 'aihf' learns from demonstrations, but the task holds none;"),
        ("--task.num-preferences=0", "error: Method 'aihf' learns from preferences, but the task holds none;"),
        ("--task.num-nodes=100000000000", "error: Not enough memory: Unable to allocate 1.46 TiB"),
        ("--task.reward-width=10000000", "you tried to allocate"),
    ],
)  # fmt: skip
def test_impossible_settings(flag: str, sentence: str, refused: Callable[..., str]) -> None:
    assert sentence in refused("train", "walks", "aihf", *TINY, flag, "--out", "it")


def test_words_that_may_be_meant(command: Command) -> None:
    """Odd, and possible: a labeller who is never wrong, a negative seed, one demonstration and one comparison."""
    odd = ["--task.labeller.rationality=inf", "--seed=-1", "--task.num-demonstrations=1", "--task.num-preferences=1"]
    assert command("train", "walks", "aihf", *TINY, *odd, "--out", "it").code == 0


# Run directories.


@pytest.mark.parametrize("verb", ["resume", "evaluate"])
def test_no_run_there(verb: str, refused: Callable[..., str]) -> None:
    Path("empty").mkdir()
    assert "nowhere" in refused(verb, "nowhere")
    assert "config.json" in refused(verb, "empty")


def test_a_run_is_never_overwritten(refused: Callable[..., str], finished: Path) -> None:
    assert refused("train", "walks", "aihf", *TINY, "--out", finished) == (
        f"error: {finished} already holds a finished run. Resume it, or choose another directory for a new one."
    )
    (finished / "result.json").unlink()
    assert "already holds a run. Resume it" in refused("train", "walks", "aihf", *TINY, "--out", finished)
    assert "is a file; expected a directory" in refused("train", "walks", "bc", *TINY, "--out", finished / "lock")
    assert "is not a run directory: it holds" in refused(
        "train", "walks", "bc", *TINY, "--out", finished / "checkpoints"
    )
    there = finished / "config.json" / "run"
    assert f"{there} cannot be made: Not a directory" in refused("train", "walks", "bc", *TINY, "--out", there)


def test_a_run_in_use_by_another_process(refused: Callable[..., str], unfinished: Path) -> None:
    code = "import sys; from pathlib import Path; from unified_irl.rundir import RunDirectory\n"
    code += "held = RunDirectory.open(Path(sys.argv[1])); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, unfinished], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        sentence = refused("resume", unfinished)
        other.communicate()
    assert f"{unfinished} is in use by process {other.pid} on " in sentence
    assert "Wait until it ends, or choose another directory." in sentence


BROKEN_CONFIGS = {
    "": "is not valid JSON (line 1, column 1",
    '{"task_name": "walks", ': "is not valid JSON",
    "\xff\xfe": "config.json",
    "[]": "holds no table of settings",
    "{}": "'task_name' is missing; expected the config of a run as `train` writes it.",
}
BROKEN_SETTINGS = [
    ("task_name", "wolks", "There is no task called 'wolks'. Did you mean walks"),
    ("task_name", ["walks"], "'task_name' is [\"walks\"], expected text."),
    ("seed", "one", "'seed' is \"one\", expected a whole number."),
    ("seed", None, "'seed' is null, expected a whole number."),
    ("task", [], "'the whole' is [], expected a table of settings."),
    ("task", {"num_nodes": 1}, "walks: num_nodes is 1; expected 2 or more"),
    ("task", {"num_node": 8}, "the key 'num_node' is not known: did you mean num_nodes"),
    ("method", {"name": "mine"}, "'phases' is missing; it has no default, so give it a value."),
    ("run", {"keep": "two"}, "'keep' is \"two\", expected a whole number."),
]


@pytest.mark.parametrize("verb", ["resume", "evaluate"])
@pytest.mark.parametrize(("text", "sentence"), BROKEN_CONFIGS.items())
def test_a_broken_config(verb: str, text: str, sentence: str, refused: Callable[..., str], unfinished: Path) -> None:
    (unfinished / "config.json").write_bytes(text.encode("latin-1"))
    said = refused(verb, unfinished)
    assert sentence in said
    assert str(unfinished / "config.json") in said


@pytest.mark.parametrize("verb", ["resume", "evaluate"])
@pytest.mark.parametrize(("key", "value", "sentence"), BROKEN_SETTINGS)
def test_a_broken_setting(
    verb: str, key: str, value: Any, sentence: str, refused: Callable[..., str], unfinished: Path
) -> None:
    path = unfinished / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    assert sentence in refused(verb, unfinished)


# Checkpoints.


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def put_a_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"learner": 1}))


@pytest.mark.parametrize(
    ("name", "harm", "sentence"),
    [
        ("manifest.json", Path.unlink, "manifest.json is missing"),
        ("manifest.json", truncate, "is truncated after"),
        ("manifest.json", flip, "is altered: its checksum differs"),
        ("state.safetensors", Path.unlink, "state.safetensors is missing"),
        ("state.safetensors", truncate, "state.safetensors is truncated:"),
        ("state.safetensors", flip, "state.safetensors is altered: its checksum differs"),
        ("state.safetensors", put_a_pickle, "was replaced by a pickle, which is never loaded here"),
        ("state.json", flip, "state.json is altered: its checksum differs"),
    ],
)
def test_a_damaged_checkpoint(
    name: str, harm: Callable[[Path], None], sentence: str, refused: Callable[..., str], command: Command,
    unfinished: Path, trained_once: Path,
) -> None:  # fmt: skip
    newest = unfinished / "checkpoints" / "round-00000012"
    harm(newest / name)
    for verb in ("resume", "evaluate"):
        said = refused(verb, unfinished)
        assert sentence in said
        assert f"Delete the folder {newest}; the run, resumed, then goes on from round-00000008." in said
    shutil.rmtree(newest)
    assert command("resume", unfinished).code == 0
    assert result_of(unfinished) == result_of(trained_once)
    assert (unfinished / "metrics.jsonl").read_bytes() == (trained_once / "metrics.jsonl").read_bytes()


def test_no_checkpoint_at_all(
    refused: Callable[..., str], command: Command, unfinished: Path, trained_once: Path
) -> None:
    shutil.rmtree(unfinished / "checkpoints")
    said = refused("evaluate", unfinished)
    assert f"{unfinished} holds no latest checkpoint yet; `resume {unfinished}` goes on with the run." in said
    assert command("resume", unfinished).code == 0
    assert result_of(unfinished) == result_of(trained_once)


def test_a_checkpoint_of_another_config(refused: Callable[..., str], unfinished: Path) -> None:
    path = unfinished / "config.json"
    stored = json.loads(path.read_text())
    stored["task"]["num_nodes"] = 9
    path.write_text(json.dumps(stored))
    for verb in ("resume", "evaluate"):
        said = refused(verb, unfinished)
        assert "round-00000012 is of another task or method than the run's config.json says: " in said
        assert said.endswith("Restore the config that the run was started with.")


def test_metrics_that_were_cut_or_altered(refused: Callable[..., str], unfinished: Path) -> None:
    path = unfinished / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"\n") + 1])
    assert "rows were lost. Restore a copy of the file, or start a new run." in refused("resume", unfinished)
    path.write_bytes(whole[:-1] + b" \n")
    assert "was altered: no row ends at byte" in refused("resume", unfinished)


# Files of feedback.


@pytest.fixture(scope="module")
def collected_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Demonstrations and preferences of the tiny world, written by `collect`."""
    place = tmp_path_factory.mktemp("collected")
    assert cli.run(["collect", "walks", str(place), *WORLD]) == 0
    return place


def change(path: Path, name: str, make: Callable[[torch.Tensor], torch.Tensor | None]) -> None:
    """The same file with one tensor made anew, or left out."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    made = make(tensors.pop(name))
    save_file(tensors if made is None else {**tensors, name: made}, path, metadata=metadata)


def name_twice(path: Path) -> None:
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + size].rstrip()
    entry = re.search(rb'"maker":\{[^}]*\}', header)
    assert entry is not None
    header = header[:-1] + b"," + entry[0] + b"}"
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + size :])


def poison(value: torch.Tensor) -> torch.Tensor:
    return torch.full_like(value, torch.nan)


BAD_FILES: list[tuple[str, str, Callable[[Path], Any], str]] = [
    ("missing", "", Path.unlink, "there is no such file"),
    ("empty", "", lambda path: path.write_bytes(b""), "the file is empty"),
    ("truncated", "", truncate, "not a whole safetensors file"),
    ("pickled", "", put_a_pickle, "not a whole safetensors file"),
    ("torch-saved", "", lambda path: torch.save({"a": torch.ones(2)}, path), "not a whole safetensors file"),
    ("named-twice", "", name_twice, "its header names maker twice; expected every key once."),
    ("no-maker", "", lambda path: change(path, "maker", lambda it: None), "'maker' is missing; the file holds"),
    ("too-many-makers", "", lambda path: change(path, "maker", lambda it: it + 9), "'maker' names entry 9"),
    ("short", "demonstrations", lambda path: change(path, "trajectories.weight", lambda it: it[1:]),
     "'weight' has shape [7]; expected [8]"),
    ("flat-mask", "demonstrations", lambda path: change(path, "trajectories.mask", lambda it: it[:, 0].clone()),
     "'mask' has shape [8]; expected [behaviours, steps]."),
    ("nan", "demonstrations", lambda path: change(path, "trajectories.weight", poison),
     "'weight' holds NaN or infinite numbers in 8 behaviours"),
    ("no-goal", "demonstrations", lambda path: change(path, "trajectories.data.goal", lambda it: None),
     "'goal' is missing; a walk needs node, action and goal"),
    ("other-nodes", "demonstrations", lambda path: change(path, "trajectories.data.node", lambda it: it + 90),
     "Was the file made for another graph (num_nodes, graph_seed)?"),
    ("nan-labels", "preferences", lambda path: change(path, "label", poison), "a label is not between 0 and 1"),
    ("negative-margins", "preferences", lambda path: change(path, "margin", lambda it: it - 1),
     "'margin' must hold one finite number of 0 or more per comparison."),
    ("fewer-labels", "preferences", lambda path: change(path, "label", lambda it: it[1:]),
     "8 first sides, 8 second sides and 7 labels; expected the same number of each."),
    ("other-sides", "preferences", lambda path: change(path, "second.context_id", lambda it: it.roll(1)), "contexts"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "harm", "sentence"),
    [
        pytest.param(kind, harm, sentence, id=f"{name}-{kind}")
        for name, which, harm, sentence in BAD_FILES
        for kind in ("demonstrations", "preferences")
        if which in ("", kind)
    ],
)
def test_bad_files_of_feedback(
    kind: str, harm: Callable[[Path], Any], sentence: str, refused: Callable[..., str], collected_once: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    path = tmp_path / f"{kind}.safetensors"
    shutil.copy(collected_once / path.name, path)
    harm(path)
    said = refused("train", "walks", "aihf", *TINY, f"--task.{kind}-file", path, "--out", "it")
    assert sentence in said
    assert str(path) in said


def test_feedback_of_another_graph_or_kind(refused: Callable[..., str], collected_once: Path) -> None:
    path = collected_once / "demonstrations.safetensors"
    words = ("train", "walks", "bc", *TINY, f"--task.demonstrations-file={path}", "--out", "it")
    other = refused(*words, "--task.graph-seed", 1)
    assert "edge that this graph does not have. Was the file made for another graph" in other
    assert "a walk is longer than the horizon of 1 steps; raise the horizon." in refused(*words, "--task.horizon", 1)
    swapped = f"--task.demonstrations-file={collected_once / 'preferences.safetensors'}"
    assert "holds preferences in" in refused("train", "walks", "bc", *TINY, swapped, "--out", "it")


# Disks.


@contextlib.contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """No file of this process can grow beyond that many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("num_bytes", [0, 300, 1500, 3500, 8000, 16_000, 24_000, 40_000])
def test_a_run_that_finds_no_room_goes_on_where_there_is_some(
    num_bytes: int, command: Command, trained_once: Path
) -> None:
    """Wherever it stops (config, metrics, checkpoint), it says so, and ends as if there had always been room."""
    words = ("train", "walks", "aihf", *TINY, "--out", "it")
    with files_of_at_most(num_bytes):
        said = command(*words)
    assert said.code == 2
    assert os.strerror(errno.EFBIG) in said.sentence
    assert "it" in said.sentence
    assert command(*(("resume", "it") if Path("it/config.json").exists() else words)).code == 0
    assert result_of(Path("it")) == result_of(trained_once)
    assert Path("it/metrics.jsonl").read_bytes() == (trained_once / "metrics.jsonl").read_bytes()


def test_other_verbs_that_find_no_room(command: Command) -> None:
    with files_of_at_most(200):
        collected = command("collect", "walks", "data", *WORLD)
        benched = command("bench", "core", "--num-nodes", 9, "--horizon", 2, "--rounds", 1, "--repeats", 1)
    for said in (collected, benched):
        assert said.code == 2
        assert os.strerror(errno.EFBIG) in said.sentence
    assert not contents(Path("data"))


NAMESPACE = ["unshare", "--map-root-user", "--mount"]
ON_A_SMALL_DISK = """
import contextlib, io, json, os, pathlib, subprocess, sys
from experiments import cli

def command(*words):
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["unified-irl", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as end:
        told.append([end.code or 0, " ".join(err.getvalue().split())])

told, disk = [], pathlib.Path(sys.argv[1])
words = ["train", "walks", "aihf", *sys.argv[2:], "--out", disk / "run"]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "none", disk], check=True)
command(*words)
subprocess.run(["mount", "-o", "remount,size=9M", disk], check=True)
command("resume", disk / "run")
result = json.loads((disk / "run" / "result.json").read_text())
subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
command("evaluate", disk / "run")
command("resume", disk / "run")
command(*words[:-1], disk / "new")
command("collect", "walks", disk)
command("compare", "--methods", "bc", "--seeds", "1", "--out", disk / "matrix")
print(json.dumps([told, result]))
"""


def test_a_full_disk_and_a_read_only_one(tmp_path: Path, trained_once: Path) -> None:
    if subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode:
        pytest.skip("mounting needs user namespaces, which this machine does not allow")
    done = subprocess.run(
        [*NAMESPACE, sys.executable, "-c", ON_A_SMALL_DISK, tmp_path, *TINY], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    told, result = json.loads(done.stdout)
    full, resumed, examined, resumed_again, anew, collected, compared = told
    assert full[0] == 2
    assert os.strerror(errno.ENOSPC) in full[1]
    assert re.search(r"Free some space, then resume the run|Mend that and resume", full[1])
    assert [resumed[0], examined[0]] == [0, 0]
    assert {**result, "seconds": None} == {**result_of(trained_once), "seconds": None}
    for code, sentence in (resumed_again, anew, collected, compared):
        assert code == 2
        assert os.strerror(errno.EROFS) in sentence


# Numbers that go wrong.


def test_a_learning_rate_that_explodes(command: Command) -> None:
    far = ["--method.reward-descent.learning-rate", "1e12", "--run.checkpoint-every", 1, "--run.evaluate-every", 0]
    said = command("train", "walks", "aihf", *TINY, *far, "--out", "it")
    assert said.code == 2
    assert re.match(r"error: Round \d+ \(phase 'joint'\): (loss|policy_loss) is -?[\d.e+]+|nan", said.sentence)
    assert "Try a lower learning rate, a larger beta, max_grad_norm or a regulariser." in said.sentence
    assert not Path("it/result.json").exists()
    assert command("evaluate", "it").code == 0
    before = contents(Path("it"))
    assert command("resume", "it").sentence == said.sentence
    assert contents(Path("it")) == before


def poisoned(path: Path, after: int, weight: float, **settings: int) -> tuple[str, RunDirectory]:
    """A run whose demonstrations go bad after some rounds: what it says, and its directory."""
    config = default_config("walks", "aihf")
    config = replace(
        config,
        task=replace(config.task, num_nodes=8, horizon=5, num_demonstrations=8, num_preferences=8),
        method=config.method.with_phases(rounds=9),
        run=replace(config.run, **settings),
        tracking=replace(config.tracking, progress="quiet"),
    )
    learner = build_learner("walks", config)
    learn = learner.round

    def round_with_poison() -> dict[str, float]:
        if learner.num_rounds == after:
            assert learner.demonstrations is not None
            learner.demonstrations.trajectories.weight[0] = weight
        return learn()

    learner.round = round_with_poison  # type: ignore[method-assign]
    with RunDirectory.create(path, config_to_json("walks", config), ["test"]) as directory:
        with pytest.raises(Diverged) as caught:
            run.train(learner, directory, config.run, config.tracking)
        return str(caught.value), directory


@pytest.mark.parametrize("weight", [torch.nan, torch.inf])
def test_poison_leaves_the_last_good_checkpoint(weight: float, tmp_path: Path, command: Command) -> None:
    sentence, directory = poisoned(tmp_path / "it", 6, weight, checkpoint_every=2, evaluate_every=0)
    assert re.match(r"Round 7 \(phase 'joint'\): loss is (nan|-?inf|-?[\d.e+]+)\. The run stops; ", sentence)
    newest = checkpoint.latest(directory.checkpoints)
    assert newest is not None
    assert newest.name == "round-00000006"
    assert [row["step"] for row in read_metrics(directory.path)] == [1, 2, 3, 4, 5, 6]
    assert not directory.is_finished
    assert command("evaluate", tmp_path / "it").code == 0
    assert command("resume", tmp_path / "it").code == 0, "without the poison it goes on from there"


def test_what_went_bad_in_the_last_step_is_neither_saved_nor_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss is still finite when the step is taken that ruins everything; the metrics cannot show it."""
    from unified_irl.descent import Descent

    step = Descent.step

    def ruinous(self: Descent, step_size: float = 1.0) -> None:
        step(self, step_size)
        if self.num_steps == after:
            with torch.no_grad():
                self.parameters[0].fill_(torch.nan)

    monkeypatch.setattr(Descent, "step", ruinous)
    for after, settings, last in (
        (9, {"checkpoint_every": 2, "evaluate_every": 0}, "round-00000008"),
        (6, {"checkpoint_every": 2, "evaluate_every": 0}, "round-00000004"),
        (6, {"checkpoint_every": 2, "evaluate_every": 2}, "round-00000004"),
    ):
        path = tmp_path / f"{after}-{settings['evaluate_every']}"
        sentence, directory = poisoned(path, 100, 1.0, **settings)
        assert sentence.startswith(
            (f"Round {after}: the last step made NaN of reward/", f"Round {after} (phase 'joint'): ")
        )
        assert not directory.is_finished
        newest = checkpoint.latest(directory.checkpoints)
        assert newest is not None
        assert newest.name == last


# Interruptions.


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with subprocess.Popen(
        [CONSOLE, "train", "walks", "aihf", *TINY, "--method.phases.0.rounds=100000", "--out", path],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 120
        while not list((path / "checkpoints").glob("round-*")):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == "interrupted; `resume` or the same command goes on from the last checkpoint\n"
    assert checkpoint.latest(path / "checkpoints") is not None


def test_letters_that_the_terminal_lacks_are_replaced() -> None:
    poor = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([CONSOLE, "methods"], env=poor, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "?log ?(demo)" in done.stdout


def test_a_reader_that_goes_away_is_no_error() -> None:
    with subprocess.Popen([CONSOLE, "methods"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode != 2
