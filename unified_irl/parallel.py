"""Several processes at one run. All hold all data and all weights and go through the same rounds; of every batch and
every sampling each computes a share, and what they sum up or gather is the same for all.

Since losses are sums over rows, divided by numbers of the whole batch, the shares add up to what one process computes.
Whoever starts the processes (accelerate launch, torchrun, SLURM) says in RANK and WORLD_SIZE who is who.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from unified_irl.errors import LostAnother

T = TypeVar("T")
PATIENCE = timedelta(minutes=30)
"""How long one waits for the others: examinations of large models take their time."""


@dataclass(frozen=True)
class World:
    """Which of how many processes this is."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """The one that writes and speaks."""
        return self.rank == 0

    def share(self, count: int) -> Tensor:
        """Which of `count` rows are this process's."""
        return torch.arange(count)[self.rank :: self.size]


_world = World()
_gives = False


def world() -> World:
    return _world


def join() -> World:
    """Meet the others, where the environment names some; on GPUs each process takes its own."""
    global _world
    size = _number("WORLD_SIZE", 1)
    if size > 1 and _world.size == 1:
        on_gpu = torch.cuda.is_available()
        if on_gpu:
            torch.cuda.set_device(_number("LOCAL_RANK", 0))
        _together(lambda: distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=PATIENCE))
        _world = World(distributed.get_rank(), distributed.get_world_size())
    return _world


@contextmanager
def alone() -> Iterator[None]:
    """Within, this process is the only one: what it computes is its own share of something."""
    global _world
    others, _world = _world, World()
    try:
        yield
    finally:
        _world = others


def add_up(tensors: Sequence[Tensor]) -> None:
    """Replace each by its sum over all processes."""
    if _world.size == 1 or not tensors:
        return
    flat = torch.cat([one.reshape(-1) for one in tensors])
    _together(lambda: distributed.all_reduce(flat))
    begin = 0
    for one in tensors:
        one.copy_(flat[begin : begin + one.numel()].view_as(one))
        begin += one.numel()


def gather(value: T) -> list[T]:
    """Everybody's value, in the order of the ranks."""
    if _world.size == 1:
        return [value]
    found: list[Any] = [None] * _world.size
    _together(lambda: distributed.all_gather_object(found, value))
    return found


def anywhere(here: bool, device: torch.device | str) -> bool:
    """Whether it is so in any process, `alone` or not."""
    if not distributed.is_initialized():
        return here
    votes = torch.tensor(float(here), device=device)
    _together(lambda: distributed.all_reduce(votes, distributed.ReduceOp.MAX))
    return bool(votes)


def first_goes(work: Callable[[], T]) -> T:
    """What some work gives that the first process does before the others, who may then find what it has made."""
    try:
        if _world.is_first:
            return work()
    finally:
        gather(None)
    return work()


def first_says(value: T) -> T:
    """What the first process gives, for all."""
    if _world.size == 1:
        return value
    told: list[Any] = [value]
    _together(lambda: distributed.broadcast_object_list(told, src=0))
    return told[0]  # type: ignore[no-any-return]


def is_share(tensor: Tensor) -> bool:
    """Whether other processes hold other parts of it."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """All parts of a tensor that the processes share, which all have to ask for."""
    if not is_share(tensor):
        return tensor
    everything: Tensor = tensor.full_tensor()  # type: ignore[attr-defined]
    return everything.new_empty(0, device="cpu") if _gives else everything.cpu()


@contextmanager
def giving() -> Iterator[None]:
    """Within, this process gives its parts to the others and keeps nothing of the whole."""
    global _gives
    _gives = True
    try:
        yield
    finally:
        _gives = False


def share_of(tensor: Tensor, like: Any) -> Tensor:
    """This process's part of a tensor that all hold, if that is how the other one is shared."""
    if not is_share(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def leave() -> None:
    """Part from the others."""
    global _world
    if _world.size > 1:
        _world = World()
        distributed.destroy_process_group()


def _together(meet: Callable[[], Any]) -> None:
    try:
        meet()
    except (RuntimeError, ValueError) as error:
        raise lost(error) from error


def is_loss(error: RuntimeError) -> bool:
    """Whether this is how a pass over shared weights ends when another process is gone."""
    return _world.size > 1 and (isinstance(error, distributed.DistError) or "gloo" in str(error))


def lost(error: BaseException) -> LostAnother:
    why = " ".join(str(error).split())[:200]
    return LostAnother(
        f"Another process of this run is gone, or was never there ({why}). Its last checkpoint is whole: start all "
        "processes again with `resume`."
    )


def _number(name: str, usual: int) -> int:
    given = os.environ.get(name, "")
    return int(given) if given.isdigit() else usual
