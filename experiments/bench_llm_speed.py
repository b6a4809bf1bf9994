"""How fast the language world learns and samples, beside TRL, transformers, and the arithmetic that it needs."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from experiments import llm_material as material
from experiments.bench_control_speed import gemm_throughput
from unified_irl.errors import UserError

Report = Callable[[str], None]
Part = Literal["dpo", "sampling", "memory", "round", "gpu"]
BARS = {"dpo": 1.5, "sampling": 3.0, "memory": 0.35, "losses": 1e-4}
"""What is to be reached: times TRL's pairs per second, times the tokens per second of `generate`, share of the memory
of a whole softmax; and how far losses may differ, for the first comparison to be one at all."""
NUM_LOSSES = 20
HOW_TO_MAKE = (
    "TRL needs an environment of its own, whose Python --trl-python names. To make one: python3.11 -m venv trl-venv && "
    "trl-venv/bin/pip install -c constraints.txt trl==1.16.0 torch==2.13.0 transformers==5.23.0 datasets"
)
DPO = {"beta": 0.1, "learning_rate": 1e-5}
Rivals = dict[str, tuple[dict[str, Any], int]]
"""TRL by its settings, and the number of losses that it tells at first."""
FULL: dict[str, Any] = {"bf16": False, "gradient_checkpointing": False}
"""Full precision, as ours, and activations kept; its other defaults are its fastest but for compilation."""
RIVALS: Rivals = {
    "TRL": (FULL, NUM_LOSSES),
    "TRL, compiled": (FULL | {"torch_compile": True}, NUM_LOSSES),
    "TRL as it comes": ({}, 1),
}
RIVALS_ON_GPU: Rivals = {"TRL": ({"gradient_checkpointing": False}, NUM_LOSSES), "TRL as it comes": ({}, NUM_LOSSES)}


@dataclass(frozen=True, kw_only=True)
class BenchLLMSpeedConfig:
    """What is timed. Contenders take turns, and ratios are of blocks that lie side by side."""

    parts: tuple[Part, ...] = ("dpo", "sampling", "memory", "round", "gpu")
    """Steps on pairs, completions, memory of log-probabilities, a round of aihf; steps of a model of 1.4 billion
    parameters, where a CUDA device can be used."""
    blocks: int = 8
    """Blocks of each contender."""
    seconds: float = 15.0
    """Length of a block; a step that has begun is finished."""
    threads: tuple[int, ...] = (1, 2)
    """Numbers of threads tried; each contender then gets the one that suits it best."""
    trl_python: str = ""
    """The Python of an environment with TRL 1.16.0; without one, nobody is compared in the steps on pairs."""
    sizes: Literal["usual", "toy"] = "usual"
    """Toy sizes show that everything runs, and tell nothing of speed."""
    peak_tflops: float = 989.0
    """What the CUDA device could do at most, in 10¹² operations of bfloat16 per second (989: H100 and H200)."""
    out: str = ""
    """A JSON file for the numbers; by default nothing is kept."""

    def __post_init__(self) -> None:
        for name in ("blocks", "seconds", "peak_tflops"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} is {getattr(self, name)}; expected more than 0.")
        if not self.threads or min(self.threads) < 1:
            raise UserError(f"threads is {self.threads}; expected one or more numbers of threads, such as 1 2.")
        if not self.parts:
            raise UserError("parts is empty; expected one or more of dpo, sampling, memory, round, gpu.")


def dpo_part(config: BenchLLMSpeedConfig, sizes: material.Sizes, folder: Path, report: Report) -> dict[str, Any]:
    """Steps of dpo on the same pairs in the same order, from the same weights."""
    import torch

    made = material.pairs(sizes, sizes.compared.vocabulary)
    told = DPO | {
        "model": material.keep_model(material.make_model(sizes.compared), folder / "compared"),
        "pairs": material.keep(made, folder / "pairs.json"),
        "batch": sizes.batch,
        "device": "cpu",
        "products": "float32",
        "first_threads": 1,
    }
    report(f"dpo: batches of {sizes.batch} pairs, {_described(sizes.compared)}, CPU")
    rivals = {name: one for name, one in RIVALS.items() if "compiled" not in name or shutil.which("g++")}
    result = _compared_with_trl(config, told, rivals, report)
    ours, flop = result["contenders"]["dpo"], material.pair_flop(sizes.compared, made)
    speed = gemm_throughput(torch.float32, ours["threads"], config.seconds / 20)
    result["floor"] = {"pair_flop": flop, "threads": ours["threads"], "products_flop_per_second": speed}
    report(
        f"a pair takes {flop / 1e9:.2f} GFLOP, unpadded; products on {ours['threads']} threads make {speed / 1e9:.0f} "
        f"GFLOP/s, so {speed / flop:.2f} pairs per second; dpo reaches {ours['pairs_per_second'] * flop / speed:.0%}"
    )
    return result


def _compared_with_trl(
    config: BenchLLMSpeedConfig, told: dict[str, Any], rivals: Rivals, report: Report
) -> dict[str, Any]:
    from experiments.peers.contest import Contender, contest, ratio

    contenders = [Contender(name="dpo", script="language_dpo.py", options=told | {"losses": NUM_LOSSES})]
    if config.trl_python:
        contenders += [
            Contender(
                name=name,
                script="trl_dpo.py",
                python=config.trl_python,
                options=told | {"settings": settings, "losses": losses},
            )
            for name, (settings, losses) in rivals.items()
        ]
    else:
        report(f"Nobody is compared. {HOW_TO_MAKE}")
    raced = contest(
        contenders, threads=config.threads, seconds=config.seconds, blocks=config.blocks, report=report, unit="pairs"
    )
    ratios = {name: ratio(raced["dpo"], one) for name, one in raced.items() if name != "dpo"}
    for name, one in raced.items():
        _say(name, one, "pairs", ratios.get(name), report)
    result: dict[str, Any] = {"contenders": raced, "ratios": ratios}
    if ratios:
        losses = {name: one["facts"]["losses"] for name, one in raced.items()}
        result["loss_difference"] = max(
            abs(one - other)
            for name in ratios
            if len(losses[name]) == NUM_LOSSES
            for one, other in zip(losses["dpo"], losses[name], strict=True)
        )
        best = max(ratios, key=lambda name: raced[name]["pairs_per_second"])
        bar = f" (bar: {BARS['losses']:g})" if told["products"] == "float32" else ""
        report(f"the first {NUM_LOSSES} losses differ by {result['loss_difference']:.1e} at most{bar}")
        report(f"dpo takes {_shown(ratios[best])} times as many pairs per second as {best} (bar: {BARS['dpo']:g})")
    return result


def sampling_part(config: BenchLLMSpeedConfig, sizes: material.Sizes, folder: Path, report: Report) -> dict[str, Any]:
    """Completions that end as real ones do, at geometric lengths; and such that nobody ends before the last token."""
    from experiments.peers.contest import Contender, contest, ratio

    report(
        f"sampling: {sizes.num_prompts} prompts, {sizes.samples} completions of each, {sizes.max_tokens} tokens at "
        f"most, {_described(sizes.speaker)}, CPU"
    )
    told = {
        "prompts": material.keep(material.prompts(sizes), folder / "prompts.json"),
        "samples": sizes.samples,
        "max_tokens": sizes.max_tokens,
        "end": material.END,
    }
    names = {"complete": "native", "generate, growing cache": "dynamic", "generate, static cache": "static"}
    result = {}
    for case, mean in (("ends", sizes.mean_tokens), ("never ends", 0)):
        model = material.make_model(sizes.speaker)
        material.set_end(model, mean)
        kept = {"model": material.keep_model(model, folder / case)}
        contenders = [
            Contender(name=name, script="language_sampling.py", options=told | kept | {"which": which})
            for name, which in names.items()
        ]
        raced = contest(
            contenders,
            threads=config.threads,
            seconds=config.seconds / 3,
            blocks=config.blocks,
            report=report,
            unit="tokens",
        )
        ratios = {name: ratio(raced["complete"], one) for name, one in raced.items() if name != "complete"}
        result[case] = {"contenders": raced, "ratios": ratios}
        length = raced["complete"]["facts"]["mean_length"]
        report(f"where a completion {case}, of {length:.0f} tokens in the mean:")
        for name, one in raced.items():
            _say(name, one, "tokens", ratios.get(name), report)
        best = max(ratios, key=lambda name: raced[name]["tokens_per_second"])
        bar = f" (bar: {BARS['sampling']:g})" if mean else ""
        report(f"complete makes {_shown(ratios[best])} times as many tokens per second as {best}{bar}")
    return result


def memory_part(config: BenchLLMSpeedConfig, sizes: material.Sizes, folder: Path, report: Report) -> dict[str, Any]:
    """What a step of log-probabilities holds at most, beyond its inputs, forward and backward."""
    told = {
        "rows": sizes.rows,
        "width": sizes.row_width,
        "vocabulary": sizes.row_vocabulary,
        "first_threads": max(config.threads),
    }
    report(
        f"memory: log-probabilities of {sizes.rows} tokens and their slopes, width {sizes.row_width}, "
        f"{sizes.row_vocabulary} words"
    )
    ways = {way: _told("head_memory.py", told | {"which": way}) for way in ("token_log_prob", "log_softmax")}
    share = ways["token_log_prob"]["mib"] / ways["log_softmax"]["mib"]
    logits = sizes.rows * sizes.row_vocabulary * 4 / 2**20
    slopes = (sizes.rows + sizes.row_vocabulary) * sizes.row_width * 4 / 2**20
    for way, one in ways.items():
        report(f"{way}: {one['mib']:.0f} MiB, {one['seconds']:.2f} s, mean log-probability {one['log_prob']:.6f}")
    report(
        f"that is {share:.1%} (bar: {BARS['memory']:.0%}); the logits are {logits:.0f} MiB, the slopes that both hand "
        f"back {slopes:.0f} MiB"
    )
    return {"ways": ways, "share": share, "logits_mib": logits, "slopes_mib": slopes}


def round_part(config: BenchLLMSpeedConfig, sizes: material.Sizes, folder: Path, report: Report) -> dict[str, Any]:
    """One round of aihf on walks-text, as `train` runs it, by its phases."""
    told = {"task": "walks-text", "method": "aihf", "size": sizes.task_size, "rounds": config.blocks}
    result = {}
    for threads in config.threads:
        one = _told("language_round.py", told | {"first_threads": threads})
        result[str(threads)] = one
        phases = ", ".join(f"{name} {1e3 * seconds:.0f}" for name, seconds in one["phases"].items())
        report(
            f"a round of aihf on walks-text, {one['parameters']} parameters, {threads} threads: "
            f"{1e3 * one['seconds']:.0f} ms ({phases}), {one['sampled_tokens']:.0f} tokens sampled, peak "
            f"{one['peak_mib']:.0f} MiB"
        )
    return {"threads": result} | told


def gpu_part(config: BenchLLMSpeedConfig, sizes: material.Sizes, folder: Path, report: Report) -> dict[str, Any]:
    """The contest of dpo with a model of Pythia-1.4B's shape, weights in float32 and products in bfloat16.

    This part has never been run by its authors, for want of a device: what it reports is unproven.
    """
    import torch

    if not torch.cuda.is_available():
        report("gpu: left out, since no CUDA device can be used here")
        return {}
    size = material.PYTHIA if config.sizes == "usual" else sizes.compared
    sizes = replace(sizes, prompt=(64, 256), completion=(128, 640)) if config.sizes == "usual" else sizes
    made = material.pairs(sizes, size.vocabulary)
    told = DPO | {
        "model": material.keep_model(material.make_model(size), folder / "large"),
        "pairs": material.keep(made, folder / "large.json"),
        "batch": sizes.batch,
        "device": "cuda",
        "products": "bfloat16",
        "first_threads": 1,
    }
    report(f"gpu: batches of {sizes.batch} pairs, {_described(size)}, {torch.cuda.get_device_name()}")
    result = _compared_with_trl(config, told, RIVALS_ON_GPU, report)
    flop = material.pair_flop(size, made)
    for name, one in result["contenders"].items():
        one["mfu"] = one["pairs_per_second"] * flop / (config.peak_tflops * 1e12)
        report(f"{name}: {one['mfu']:.1%} of the device's arithmetic, peak {one['device_peak_mib']:.0f} MiB on it")
    return result | {"device": torch.cuda.get_device_name(), "pair_flop": flop}


PARTS: dict[Part, Callable[[BenchLLMSpeedConfig, material.Sizes, Path, Report], dict[str, Any]]] = {
    "dpo": dpo_part,
    "sampling": sampling_part,
    "memory": memory_part,
    "round": round_part,
    "gpu": gpu_part,
}


def run(config: BenchLLMSpeedConfig, report: Report) -> dict[str, Any]:
    if config.trl_python:
        _check_trl(config.trl_python)
    sizes = material.USUAL if config.sizes == "usual" else material.TOY
    with tempfile.TemporaryDirectory() as folder:
        return {part: PARTS[part](config, sizes, Path(folder), report) for part in config.parts}


def _check_trl(python: str) -> None:
    """Better now than after minutes."""
    asked = [python, "-c", "from importlib.metadata import version; assert version('trl') == '1.16.0'"]
    try:
        subprocess.run(asked, check=True, capture_output=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"{python} is no Python that knows TRL 1.16.0. {HOW_TO_MAKE}") from error


def _told(script: str, options: dict[str, Any]) -> dict[str, Any]:
    """What a contender says of itself, which is all that is asked of it."""
    from experiments.peers.contest import Contender, Running

    with ExitStack() as stack:
        errors = stack.enter_context(tempfile.TemporaryFile("w+"))
        one = stack.enter_context(Running(Contender(name=script, script=script, options=options), errors))
        return one.answer()


def _described(size: material.ModelSize) -> str:
    count = 12 * size.layers * size.width**2 + 2 * size.vocabulary * size.width
    return f"GPT-NeoX of {count / 1e6:.1f} million weights ({size.layers} layers, width {size.width})"


def _say(name: str, one: dict[str, Any], unit: str, times: dict[str, float] | None, report: Report) -> None:
    compared = "" if times is None else f"; ours is {_shown(times)} times as fast"
    report(
        f"{name}: {one[f'{unit}_per_second']:.4g} {unit} per second on {one['threads']} threads, "
        f"peak {one['peak_mib']:.0f} MiB{compared}"
    )


def _shown(times: dict[str, float]) -> str:
    return f"{times['estimate']:.2f} [{times['low']:.2f}, {times['high']:.2f}]"
