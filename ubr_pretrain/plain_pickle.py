"""A pickle of arrays, containers, strings and numbers, read without numpy's or C's own unpickling.

Both of those trust what they are given: the state of an array that one bit changed ended the
process with a signal. Here the unpickler is Python's own, a place holder takes the state of every
array, and the array is made of it once all of it has been checked.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALLOWED = {
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "_reconstruct"),  # numpy 1
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}

VOXEL_KINDS = re.compile(r"[iu][1248]|f[248]|b1")
FOREIGN_KINDS = re.compile(r"[SUV][0-9]{1,6}|[mM]8|O8|f(12|16)|c(8|16|24|32)")
"""Of arrays that are no tensors: they come empty, to be named by who wanted a tensor."""

BYTE_ORDERS = ("<", ">", "=", "|")

DAMAGED = (
    *(pickle.UnpicklingError, EOFError, ValueError, TypeError, AssertionError, struct.error),
    *(IndexError, KeyError, AttributeError, OverflowError, RecursionError, MemoryError),
)
"""What is raised on bytes that are not a whole pickle of plain arrays."""


def unpickled(content: bytes) -> Any:
    """Return what a pickle holds.

    Raises:
        one of ``DAMAGED``: it names any other class or function, or is damaged.
    """
    found = [_PlainUnpickler(_Whole(content)).load()]
    _with_arrays(found)
    return found[0]


class _Whole(io.BytesIO):
    """Bytes of which as many are there as are asked for: the unpickler itself does not look."""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if size is not None and len(data) < size:
            raise EOFError("it ends too early")
        return data


class _Dtype:
    """The type of an array, as it is told."""

    def __init__(self, code: object, *_: object) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def checked(self) -> np.dtype[Any]:
        if not isinstance(self.code, str) or not VOXEL_KINDS.fullmatch(self.code):
            raise ValueError(f"an array of {str(self.code)[:20]!r}")
        if self.order not in BYTE_ORDERS:
            raise ValueError(f"an array in byte order {str(self.order)[:20]!r}")
        return np.dtype(f"{self.order}{self.code}")


class _Array:
    """The state of an array, as it is told."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def checked(self) -> NDArray[Any]:
        _, shape, dtype, by_column, raw = self.state
        if not (isinstance(shape, tuple) and isinstance(dtype, _Dtype)):
            raise ValueError("an array in a state that numpy does not write")
        if isinstance(dtype.code, str) and FOREIGN_KINDS.fullmatch(dtype.code):
            return np.empty(0, dtype.code)
        kind = dtype.checked()
        if not isinstance(raw, bytes):
            raise ValueError("an array without its bytes")
        if not all(type(side) is int and side >= 0 for side in shape):
            raise ValueError("an array with impossible sides")
        if math.prod(shape) * kind.itemsize != len(raw):
            raise ValueError(f"an array of {len(raw)} bytes, its sides need another number")
        return np.frombuffer(raw, kind).reshape(shape, order="F" if by_column else "C").copy("K")


def _reconstructed(*_: object) -> _Array:
    return _Array()


class _PlainUnpickler(pickle._Unpickler):
    """Knows how numpy rebuilds an array, and no other callable."""

    dispatch = {  # noqa: RUF012  (as in the class above it)
        code: action
        for code, action in pickle._Unpickler.dispatch.items()
        if code != pickle.BYTEARRAY8[0]  # which makes room for any length that is claimed
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return {"_reconstruct": _reconstructed, "ndarray": _Array, "dtype": _Dtype}[name]


def _with_arrays(tree: Any) -> None:
    """Replace every state of an array in dictionaries and lists, each of which is visited once."""
    left, seen = [tree], set()
    while left:
        holder = left.pop()
        if id(holder) in seen:
            continue
        seen.add(id(holder))
        for key, value in holder.items() if isinstance(holder, dict) else enumerate(holder):
            if isinstance(value, _Array):
                holder[key] = value.checked()
            elif isinstance(value, dict | list):
                left.append(value)
