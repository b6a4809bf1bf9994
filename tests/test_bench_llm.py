"""bench llm-speed: its arithmetic and its material, and a run of toy sizes (measuring takes minutes and a quiet
machine; TRL lives in an environment of its own, so its side is tested where it is measured)."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from experiments import cli
from experiments import llm_material as material
from experiments.bench_llm_speed import BenchLLMSpeedConfig, run
from experiments.llm_material import TOY, ModelSize, pair_flop
from experiments.peers.contest import HERE
from llm.log_prob import token_log_prob
from llm.roles import Whole
from llm.sampler import complete, seeds
from unified_irl.errors import UserError


def test_flop_of_a_pair_by_hand() -> None:
    """Width 4, 2 layers, 10 words; a prompt of 3 tokens with completions of 2 and of 1.

    4 tokens are read for the first: layer weights 2·12·16·4 = 1,536, looking back 4·4·(1 + 2 + 3 + 4) = 160, so
    2 · 1,696 = 3,392; the head 2·10·4·2 = 160. In all 3 · 3,552 = 10,656.
    3 tokens for the second: 2 · (1,152 + 96) = 2,496 and 80: 3 · 2,576 = 7,728. Together 18,384.
    """
    size = ModelSize(layers=2, width=4, heads=1, vocabulary=10)
    assert pair_flop(size, {"prompt": [[1, 3, 4]], "chosen": [[5, 2]], "rejected": [[2]]}) == 18_384


def test_flop_agrees_with_what_a_step_multiplies() -> None:
    """Of two completions of one length, so that nothing is padded. Counted product by product; our formula leaves the
    other half of the square of attention out, which the counter takes for granted, and the head's rows of the chosen
    tokens are no product."""
    size = ModelSize(layers=2, width=32, heads=2, vocabulary=64)
    prompt, count = [1, *range(3, 10)], 12
    model = material.make_model(size)
    tokens = torch.tensor([prompt + list(range(10, 10 + count)), prompt + list(range(20, 20 + count))])
    with FlopCounterMode(display=False) as counter:
        hidden = model.base_model(tokens[:, :-1], use_cache=False).last_hidden_state
        asked = hidden[:, len(prompt) - 1 :].flatten(0, 1)
        token_log_prob(asked, model.lm_head.weight, tokens[:, len(prompt) :].flatten()).sum().backward()
    pairs = {"prompt": [prompt], "chosen": [tokens[0, 8:].tolist()], "rejected": [tokens[1, 8:].tolist()]}
    assert 0.9 < counter.get_total_flops() / pair_flop(size, pairs) < 1.1


def test_pairs_are_always_the_same_and_some_share_prompts() -> None:
    made = material.pairs(TOY, TOY.compared.vocabulary)
    assert made == material.pairs(TOY, TOY.compared.vocabulary)
    assert made["prompt"][3] == made["prompt"][2]
    assert made["prompt"][2] != made["prompt"][1]
    for prompt, chosen, rejected in zip(*made.values(), strict=True):
        assert TOY.prompt[0] <= len(prompt) <= TOY.prompt[1]
        for completion in (chosen, rejected):
            assert TOY.completion[0] <= len(completion) <= TOY.completion[1]
            assert completion[-1] == material.END
            assert min(completion[:-1]) >= material.FIRST_WORD
        assert max(max(prompt), max(chosen), max(rejected)) < TOY.compared.vocabulary


def test_models_are_always_the_same() -> None:
    one, other = (material.make_model(TOY.compared).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("mean", [5, 24])
def test_the_end_comes_as_often_as_was_asked_for(mean: int) -> None:
    model = material.make_model(TOY.speaker)
    material.set_end(model, mean)
    with torch.no_grad():
        share = model(torch.randint(0, 32, (8, 12))).logits.softmax(-1)[..., material.END]
    assert torch.allclose(share, torch.tensor(1.0 / mean), rtol=0.05)


def test_where_nobody_ends_nobody_does() -> None:
    model = material.make_model(TOY.speaker)
    material.set_end(model, 0)
    prompt, draw = torch.ones(16, 1, dtype=torch.long), torch.Generator().manual_seed(0)
    said = complete(
        Whole(model), prompt, torch.ones(16, dtype=torch.long), seed_B=seeds(16, draw), max_tokens=30, end=material.END
    )
    assert not said.ended_B.any()
    assert bool((said.length_B == 30).all())


@pytest.mark.slow
def test_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = "--sizes toy --blocks 2 --seconds 0.1 --threads 1 --parts dpo sampling memory --out speed.json"
    assert cli.run(["bench", "llm-speed", *tiny.split()]) == 0
    stored = json.loads(Path("speed.json").read_text())
    assert {"command", "git", "cpu", "num_cores"} <= set(stored)
    result = stored["result"]
    dpo = result["dpo"]["contenders"]["dpo"]
    assert result["dpo"]["ratios"] == {}
    assert len(dpo["facts"]["losses"]) == 20
    assert dpo["facts"]["losses"][0] == pytest.approx(math.log(2))
    assert dpo["facts"]["losses"][-1] < math.log(2)
    assert dpo["pairs_per_second"] == pytest.approx(math.sqrt(math.prod(dpo["blocks"])))
    assert result["dpo"]["floor"]["pair_flop"] == pair_flop(TOY.compared, material.pairs(TOY, 64))
    for case, (least, most) in {"ends": (3.0, 8.0), "never ends": (16.0, 16.0)}.items():
        one = result["sampling"][case]
        assert set(one["contenders"]) == {"complete", "generate, growing cache", "generate, static cache"}
        for contender in one["contenders"].values():
            assert least <= contender["facts"]["mean_length"] <= most
            assert 50 < contender["peak_mib"] < 5000
        for name, times in one["ratios"].items():
            speeds = [one["contenders"][who]["tokens_per_second"] for who in ("complete", name)]
            assert times["estimate"] == pytest.approx(speeds[0] / speeds[1])
    ours, whole = (result["memory"]["ways"][way] for way in ("token_log_prob", "log_softmax"))
    assert ours["log_prob"] == pytest.approx(whole["log_prob"], rel=1e-5)
    assert ours["slopes"] == pytest.approx(whole["slopes"], rel=1e-4)
    assert result["memory"]["share"] == pytest.approx(ours["mib"] / whole["mib"])
    said = capsys.readouterr().out
    assert "Nobody is compared. TRL needs an environment of its own" in said


def test_a_round_by_its_phases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIFIED_IRL_CACHE", str(tmp_path))
    config = BenchLLMSpeedConfig(parts=("round",), sizes="toy", blocks=1, threads=(1,))
    one = run(config, print)["round"]["threads"]["1"]
    assert set(one["phases"]) == {
        "sampling", "rewards of samples", "reference", "policy steps", "reward steps", "the rest"
    }  # fmt: skip
    assert sum(one["phases"].values()) == pytest.approx(one["seconds"])
    assert one["sampled_tokens"] > 10


def test_a_watch_counts_the_inner_phase_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 0 the watch starts; outer from 1 to 8, inner from 3 to 5; lap at 10: 1 + 2, 2 + 3, and 2."""
    monkeypatch.syspath_prepend(HERE)
    from experiments.peers import language_round

    times = iter([0.0, 1.0, 3.0, 5.0, 8.0, 10.0])
    monkeypatch.setattr(language_round.time, "perf_counter", lambda: next(times))
    watch = language_round.Stopwatch()
    with watch.phase("outer"):
        watch.over("inner", lambda: None)()
    assert watch.lap() == {"the rest": 3.0, "outer": 5.0, "inner": 2.0}


def test_without_a_device_its_part_is_left_out() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    said: list[str] = []
    assert run(BenchLLMSpeedConfig(parts=("gpu",)), said.append) == {"gpu": {}}
    assert said == ["gpu: left out, since no CUDA device can be used here"]


@pytest.mark.parametrize("python", ["/nowhere/python", sys.executable])
def test_a_python_without_trl_is_refused(python: str) -> None:
    with pytest.raises(UserError) as refused:
        run(BenchLLMSpeedConfig(trl_python=python), print)
    assert str(refused.value).startswith(f"{python} is no Python that knows TRL 1.16.0. TRL needs an environment")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"blocks": 0}, "blocks is 0; expected more than 0."),
        ({"seconds": math.nan}, "seconds is nan; expected more than 0."),
        ({"threads": ()}, "threads is (); expected one or more numbers of threads, such as 1 2."),
        ({"parts": ()}, "parts is empty; expected one or more of dpo, sampling, memory, round, gpu."),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        BenchLLMSpeedConfig(**settings)
    assert str(refused.value) == sentence


def test_help_needs_no_tensor_library() -> None:
    asked = "import sys, experiments.verbs.bench; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", asked], check=False).returncode == 0
