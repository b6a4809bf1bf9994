"""How long a run will take and how much memory it needs, found by doing a little of it."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

from experiments.train import TrainConfig, build_learner
from unified_irl.errors import UserError

if TYPE_CHECKING:
    from unified_irl.rehearsal import Forecast


def rehearsed(task_name: str, config: TrainConfig[Any]) -> Forecast:
    """The forecast; what this process holds afterwards is of no use to a run."""
    from unified_irl.rehearsal import rehearse

    return rehearse(build_learner(task_name, config), config.run)


def foretold(task_name: str, config: TrainConfig[Any]) -> Forecast:
    """The same from a process of its own, which leaves this one as it was."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(rehearsed, task_name, config).result()
        except BrokenProcessPool as error:
            raise UserError(
                "The rehearsal of this run died, as programs do that need more memory than there is. Choose a smaller "
                "model, shorter rows, smaller micro-batches, adapters (--task.model.lora.rank), or gradient "
                "checkpointing."
            ) from error
