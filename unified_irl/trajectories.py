"""Padded batches of behaviours and the contexts they start from.

A behaviour is an episode, or a completion of a prompt. The core reads the fields below and never looks into `data`:
what a step is made of (nodes, joint angles, tokens) is the domain's business.

Shape legend: B behaviours, T padded steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from unified_irl.errors import UserError

Index = Tensor | slice
PER_BEHAVIOUR = ("context_id", "weight", "start_step", "terminated", "truncated")
PER_STEP = ("mask", "rewarded", "behaviour_log_prob")
KINDS = {
    "true or false": ("mask", "rewarded", "terminated", "truncated"),
    "64-bit integers": ("context_id", "start_step"),
    "floats": ("weight", "behaviour_log_prob"),
}


@dataclass(frozen=True, kw_only=True)
class Contexts:
    """Where behaviours start: prompts, start states, start/goal pairs."""

    ids: Tensor
    """long[B]: which context of the domain each one is."""
    data: dict[str, Tensor]
    """Each [B, ...]: what the domain's sampler needs to begin."""

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: Index) -> Contexts:
        return Contexts(ids=self.ids[index], data={name: value[index] for name, value in self.data.items()})


@dataclass(frozen=True, kw_only=True)
class Trajectories:
    """A padded batch of behaviours. Padding holds zeros and False, never NaN."""

    data: dict[str, Tensor]
    """Each [B, T, ...]: what happened, in the domain's own terms."""
    mask: Tensor
    """bool[B, T]: the policy chose here; only these steps carry log-probability."""
    rewarded: Tensor
    """bool[B, T]: reward counts here. Absorbing steps are rewarded but not chosen."""
    context_id: Tensor
    """long[B]: the context each behaviour answers, −1 where that is none of the domain's; groups behaviours and pairs
    demonstrations with own samples."""
    weight: Tensor
    """float[B]: how much each behaviour counts; enumerated behaviours carry their probability here."""
    behaviour_log_prob: Tensor
    """float[B, T]: log-probability under the policy that made the step, zero where nobody knows."""
    start_step: Tensor
    """long[B]: the column of the first step within its whole behaviour; zero unless this is a segment."""
    terminated: Tensor
    """bool[B]: the world ended the behaviour."""
    truncated: Tensor
    """bool[B]: a time limit ended it; where the limit is not part of the task, the state after it still has a value."""

    @staticmethod
    def whole(context_id: Tensor, data: dict[str, Tensor], log_prob: Tensor) -> Trajectories:
        """Behaviours of equal length, as they were acted: every step chosen and rewarded, the end that of the world."""
        every, each = torch.ones_like(log_prob, dtype=torch.bool), torch.ones_like(context_id, dtype=torch.bool)
        return Trajectories(
            data=data,
            mask=every,
            rewarded=every,
            context_id=context_id,
            weight=each.to(log_prob.dtype),
            behaviour_log_prob=log_prob,
            start_step=torch.zeros_like(context_id),
            terminated=each,
            truncated=~each,
        )

    def __len__(self) -> int:
        return len(self.context_id)

    @property
    def num_steps(self) -> int:
        """T, the padded length."""
        return self.mask.shape[1]

    def __getitem__(self, index: Index) -> Trajectories:
        return self._map(lambda value: value[index])

    def to(self, device: torch.device | str) -> Trajectories:
        return self._map(lambda value: value.to(device))

    def state_dict(self) -> dict[str, Any]:
        """Its fields, for a checkpoint or a file; `Trajectories(**state)` is the way back."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def _map(self, function: Any) -> Trajectories:
        return Trajectories(
            data={name: function(value) for name, value in self.data.items()},
            **{name: function(getattr(self, name)) for name in PER_STEP + PER_BEHAVIOUR},
        )

    def discount(self, gamma: float) -> Tensor:
        """float[B, T]: γ^t on rewarded steps, zero elsewhere; t counts rewarded steps from the first one."""
        rewarded = self.rewarded.to(self.weight.dtype)
        if gamma == 1.0:
            return rewarded
        return rewarded * gamma ** (rewarded.cumsum(1) - 1.0).clamp(min=0.0)

    def padded(self, num_steps: int) -> Trajectories:
        """The same behaviours with T grown to `num_steps`."""
        extra = num_steps - self.num_steps
        if extra == 0:
            return self
        assert extra > 0, f"cannot pad {self.num_steps} steps to {num_steps}"

        def grow(value: Tensor) -> Tensor:
            return torch.cat([value, value.new_zeros(len(self), extra, *value.shape[2:])], dim=1)

        return replace(
            self,
            data={name: grow(value) for name, value in self.data.items()},
            **{name: grow(getattr(self, name)) for name in PER_STEP},
        )

    def segment(self, start: Tensor, num_steps: int) -> Trajectories:
        """The window of `num_steps` steps that begins at start[B] in each behaviour (beyond its end: padding).

        A segment that does not reach its behaviour's last step neither terminates nor is cut by a time limit.
        """
        position = start[:, None] + torch.arange(num_steps, device=start.device)
        inside = position < self.num_steps
        position = position.clamp(max=self.num_steps - 1)

        def window(value: Tensor) -> Tensor:
            extra = (1,) * (value.dim() - 2)
            picked = value.gather(1, position.view(*position.shape, *extra).expand(-1, -1, *value.shape[2:]))
            return picked * inside.view(*inside.shape, *extra).to(picked.dtype)

        last = self.num_steps - self.rewarded.flip(1).to(torch.uint8).argmax(1)
        reaches_end = start + num_steps >= last
        return replace(
            self,
            data={name: window(value) for name, value in self.data.items()},
            **{name: window(getattr(self, name)) for name in PER_STEP},
            start_step=self.start_step + start,
            terminated=self.terminated & reaches_end,
            truncated=self.truncated & reaches_end,
        )

    @staticmethod
    def cat(parts: Sequence[Trajectories]) -> Trajectories:
        """One batch of all behaviours, padded to the longest."""
        longest = max(part.num_steps for part in parts)
        grown = [part.padded(longest) for part in parts]
        return Trajectories(
            data={name: torch.cat([part.data[name] for part in grown]) for name in grown[0].data},
            **{name: torch.cat([getattr(part, name) for part in grown]) for name in PER_STEP + PER_BEHAVIOUR},
        )

    def validated(self, what: str) -> Trajectories:
        """Itself, or a UserError that says which field of `what` is wrong and how."""
        if self.mask.dim() != 2:
            raise UserError(f"{what}: 'mask' has shape {list(self.mask.shape)}; expected [behaviours, steps].")
        shape = self.mask.shape
        for name, value in {**self.data, **{name: getattr(self, name) for name in PER_STEP}}.items():
            if value.shape[:2] != shape or (name in PER_STEP and value.dim() > 2):
                wanted = f"[{shape[0]}, {shape[1]}{'' if name in PER_STEP else ', ...'}]"
                raise UserError(f"{what}: '{name}' has shape {list(value.shape)}; expected {wanted} like 'mask'.")
        for name in PER_BEHAVIOUR:
            if getattr(self, name).shape != shape[:1]:
                raise UserError(
                    f"{what}: '{name}' has shape {list(getattr(self, name).shape)}; expected [{shape[0]}], "
                    "one entry per behaviour."
                )
        for kind, names in KINDS.items():
            for name in names:
                if not _is(kind, getattr(self, name)):
                    raise UserError(f"{what}: '{name}' holds {getattr(self, name).dtype}; expected {kind}.")
        if shape[0] == 0 or not bool(self.rewarded.any(1).all()):
            empty = "it holds no behaviour" if shape[0] == 0 else "a behaviour in it has no step"
            raise UserError(f"{what}: {empty}; expected at least one behaviour of at least one step.")
        if bool((self.mask & ~self.rewarded).any()):
            raise UserError(
                f"{what}: a step is chosen ('mask') but not 'rewarded'; every chosen step must be rewarded."
            )
        for name, value in {**self.data, "weight": self.weight, "behaviour_log_prob": self.behaviour_log_prob}.items():
            if value.is_floating_point() and not bool(value.isfinite().all()):
                bad = int((~value.isfinite()).reshape(len(value), -1).any(1).sum())
                raise UserError(
                    f"{what}: '{name}' holds NaN or infinite numbers in {bad} behaviours; remove or repair them."
                )
        if bool((self.weight < 0).any()) or not bool(self.weight.any()):
            given = "only zeros" if not bool(self.weight.any()) else "negative numbers"
            raise UserError(f"{what}: 'weight' holds {given}; weights say how much a behaviour counts, 0 or more.")
        if bool((self.start_step < 0).any()):
            raise UserError(
                f"{what}: 'start_step' holds negative numbers; expected the time of the first step, 0 or more."
            )
        return self


def _is(kind: str, value: Tensor) -> bool:
    if kind == "floats":
        return value.is_floating_point()
    return value.dtype == (torch.bool if kind == "true or false" else torch.int64)
