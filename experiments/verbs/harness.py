"""harness MODEL [flags]: lm-evaluation-harness on an exported model, with the papers' tasks or your own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from experiments import command
from unified_irl.errors import UserError

LEADERBOARD = {
    "arc_challenge": 25,
    "truthfulqa_mc2": 0,
    "winogrande": 5,
    "gsm8k": 5,
    "hellaswag": 10,
    "mmlu": 5,
}
"""The six tasks of the papers' table, and how many examples a question of each comes with there."""


@dataclass(frozen=True, kw_only=True)
class Flags:
    """MODEL is the folder that `export` wrote, or any causal language model of transformers."""

    tasks: tuple[str, ...] = tuple(LEADERBOARD)
    """Tasks of the harness; by default the six of the Open LLM Leaderboard, which needs their datasets."""
    include: str = ""
    """A folder with tasks of your own, as the harness describes them."""
    limit: int = 0
    """Questions of each task; 0 asks all of them."""
    batch_size: int = 8
    """Questions at a time."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the model lives."""
    out: str = ""
    """A JSON file for the numbers."""

    def __post_init__(self) -> None:
        if not self.tasks:
            raise UserError("name at least one task of the harness.")
        if self.limit < 0 or self.batch_size < 1:
            raise UserError(
                f"limit is {self.limit} and batch_size {self.batch_size}; expected 0 or more, and 1 or more."
            )


def main(arguments: list[str]) -> None:
    (model,), rest = command.split_words(arguments, ("model",), "harness")
    config = command.flags(Flags, rest, "harness MODEL")
    from experiments.show import table
    from experiments.summary import origin
    from unified_irl.environment import describe_environment
    from unified_irl.serialise import plain, write_json

    rows = measured(model, config)
    table(f"{model} under lm-evaluation-harness", ("task", "metric", "value", "standard error"),
          [(*row[:2], f"{row[2]:.4f}", f"{row[3]:.4f}") for row in rows], numbers_from=2)  # fmt: skip
    if config.out:
        named = [dict(zip(("task", "metric", "value", "error"), row, strict=True)) for row in rows]
        write_json(Path(config.out), plain(origin(describe_environment(command.typed())) | {"results": named}))


def measured(model: str, config: Flags) -> list[tuple[str, str, float, float]]:
    """Task, metric, value and standard error."""
    try:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise UserError(
            f"lm-evaluation-harness is not installed ({error}); it is the extra 'harness' of this package: "
            "pip install 'unified-irl[harness]'."
        ) from error
    from llm.config import ModelConfig
    from llm.models import load

    speaker, tokenizer = load(ModelConfig(path=model))
    manager = TaskManager(include_path=config.include or None, include_defaults=not config.include)
    if unknown := [name for name in config.tasks if name not in manager.all_tasks]:
        raise UserError(
            f"The harness knows no task called {unknown[0]}; --include takes a folder with tasks of your own."
        )
    asked: list[Any] = []
    for name in config.tasks:
        found = simple_evaluate(
            model=HFLM(pretrained=speaker.to(config.device), tokenizer=tokenizer, batch_size=config.batch_size),
            tasks=[name],
            num_fewshot=None if config.include else LEADERBOARD.get(name),
            limit=config.limit or None,
            task_manager=manager,
        )
        asked += _rows(found["results"])
    return asked


def _rows(results: dict[str, dict[str, Any]]) -> list[tuple[str, str, float, float]]:
    rows = []
    for task, numbers in results.items():
        for key, value in numbers.items():
            metric, _, variant = key.partition(",")
            if metric.endswith("_stderr") or not isinstance(value, float):
                continue
            error = numbers.get(f"{metric}_stderr,{variant}", float("nan"))
            rows.append((task, metric, value, float(error) if isinstance(error, float) else float("nan")))
    return rows
