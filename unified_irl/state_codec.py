"""A state (nested dicts, lists and tuples of tensors, arrays, numbers and words) as JSON data beside named tensors.

What a state may hold and how each kind is written are here; where it goes, and that it arrives whole, is
`unified_irl.checkpoint`'s business.
"""

from __future__ import annotations

import itertools
from typing import Any

_LARGEST_EXACT = 2**53  # beyond it, other readers of JSON round whole numbers


class StateEncoder:
    """Turns a state into JSON data, and collects its tensors and arrays by name.

    Every object in the JSON has one key that says what it is, so nothing in a state can be mistaken for something else.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, Any] = {}
        self._names: dict[tuple[Any, ...], str] = {}
        self._storages: set[tuple[Any, ...]] = set()

    def encode(self, value: Any, place: str) -> Any:
        import numpy as np
        import torch

        if isinstance(value, torch.Tensor):
            return {"tensor": self._name_of(value, place)}
        if isinstance(value, np.ndarray | np.generic):
            kind = "array" if isinstance(value, np.ndarray) else "scalar"
            return {kind: self._name_of(_as_tensor(np.asarray(value), place), place, kind)}
        if isinstance(value, dict):
            return self._encode_dict(value, place)
        if type(value) in (list, tuple):
            items = [self.encode(item, f"{place}/{n}") for n, item in enumerate(value)]
            return items if isinstance(value, list) else {"tuple": items}
        return _encode_leaf(value, place)

    def _encode_dict(self, value: dict[Any, Any], place: str) -> Any:
        pairs = [(key, self.encode(item, f"{place}/{key}")) for key, item in value.items()]
        if all(type(key) is str for key in value):
            return {"dict": dict(pairs)}
        return {"pairs": [[self.encode(key, f"a key of {place}"), item] for key, item in pairs]}

    def _name_of(self, tensor: Any, place: str, kind: str = "tensor") -> str:
        """The name under which the tensor is kept. The same view of the same memory (tied weights) is kept once.

        Memory seen here stays alive, in the state or in `tensors`, so an address never means two things.
        """
        import torch

        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta or tensor.dtype == torch.complex128:
            raise _cannot_hold(place, f"a {tensor.dtype} tensor of layout {tensor.layout} on {tensor.device}")
        view = tensor.detach()
        flipped = view.is_conj() or view.is_neg()
        identity = (kind, view.device, view.dtype, view.data_ptr(), view.shape, view.stride(), flipped)
        if view.numel() and identity in self._names:
            return self._names[identity]
        name = self._unused(place)
        self._names[identity] = name
        self.tensors[name] = self._own_memory(view)
        return name

    def _unused(self, place: str) -> str:
        place = place.encode("utf-8", "backslashreplace").decode()
        names = (place if n == 0 else f"{place}~{n}" for n in itertools.count())
        return next(name for name in names if name not in self.tensors)

    def _own_memory(self, view: Any) -> Any:
        """Contiguous, on the CPU, and sharing memory with no other tensor here: safetensors refuses overlaps."""
        place = (view.device, view.untyped_storage().data_ptr())
        is_alone = place not in self._storages
        self._storages.add(place)
        whole = view.resolve_conj().resolve_neg().cpu().contiguous()
        return whole if is_alone or whole.data_ptr() != view.data_ptr() else whole.clone()


def _encode_leaf(value: Any, place: str) -> Any:
    if value is None or type(value) in (bool, str):
        return value
    if type(value) is int:
        return value if abs(value) <= _LARGEST_EXACT else {"int": hex(value)}
    if type(value) is float:
        return value if value - value == 0 else {"float": str(value)}
    raise _cannot_hold(place, f"a {type(value).__name__}")


def _as_tensor(array: Any, place: str) -> Any:
    import torch

    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if not (array.flags.c_contiguous and array.flags.writeable):
        array = array.copy(order="C")
    try:
        return torch.from_numpy(array)
    except TypeError as error:
        raise _cannot_hold(place, f"an array of {array.dtype}") from error


def _cannot_hold(place: str, what: str) -> TypeError:
    return TypeError(
        f"{place} is {what}, which a checkpoint cannot hold. Expected dense tensors, numpy arrays of numbers, numbers, "
        "bool, str or None, in dicts, lists and tuples."
    )


def decode_state(node: Any, tensors: dict[str, Any]) -> Any:
    """The state that `StateEncoder.encode` described. Arrays share memory with the tensors given."""
    if isinstance(node, list):
        return [decode_state(item, tensors) for item in node]
    if not isinstance(node, dict):
        return node
    ((kind, value),) = node.items()
    if kind == "tensor":
        return tensors[value]
    if kind in ("array", "scalar"):
        return tensors[value].numpy() if kind == "array" else tensors[value].numpy()[()]
    if kind == "dict":
        return {key: decode_state(item, tensors) for key, item in value.items()}
    if kind == "pairs":
        return {decode_state(key, tensors): decode_state(item, tensors) for key, item in value}
    if kind == "tuple":
        return tuple(decode_state(item, tensors) for item in value)
    if kind in ("int", "float"):
        return int(value, 16) if kind == "int" else float(value)
    raise ValueError(f"'{kind}' is not known")
