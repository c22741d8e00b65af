"""Numeric arrays out of a pickle, with nothing in it able to run.

A pickle names functions and classes ("globals") and has them called. Here no global is ever looked up: the few names
with which NumPy and Python 2 pickle an array stand for objects of this file, which only take the array's bytes, and
every other name is an error. Not even NumPy's own reconstruction is called with what a stranger wrote.
"""

import math
import pickle
from collections.abc import Callable, Mapping
from typing import IO, Any, Final

import numpy as np

NUMERIC: Final = frozenset({"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"})
"""Types of elements that are read, in NumPy's short names. Above all not "O": elements that are pickled objects."""


class RefusedPickle(pickle.UnpicklingError):
    """The pickle is more than plain data, or an array in it is not as NumPy writes it; the message says what."""


class RefusedGlobal(RefusedPickle):
    """The pickle names a function or class that plain data does not need; nothing of it was run."""

    def __init__(self, name: str) -> None:
        super().__init__(f"it names {name}")
        self.name = name


class PickledArray:
    """An array of a pickle; `values` has memory of its own, writeable, in the byte order of this machine."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: np.ndarray[Any, Any] | None = None

    @property
    def values(self) -> np.ndarray[Any, Any]:
        """The array; RefusedPickle if the pickle began it and did not fill it."""
        if self._values is None:
            raise RefusedPickle("an array without content")
        return self._values

    def __setstate__(self, state: object) -> None:
        match state:
            case (int(), shape, _Dtype() as dtype, bool() | int() as fortran, str() | bytes() as content):
                self._values = _array(content, dtype, shape, "F" if fortran else "C")
            case _:
                raise RefusedPickle("an array whose content is not plain bytes")


class _Dtype:
    """A type of elements: code such as "f4", then byte order by `__setstate__`."""

    __slots__ = ("code", "order")

    def __init__(self, code: object) -> None:
        if code not in NUMERIC:
            raise RefusedPickle(f"an array of type {code!r}, which is not numeric")
        self.code = str(code)
        self.order = "="

    def __setstate__(self, state: object) -> None:
        match state:
            case (int(), str("<" | ">" | "=" | "|") as order, None, None, None, *_):
                self.order = order
            case _:
                raise RefusedPickle("an array whose type is not plain")

    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self.order.replace("|", "=") + self.code)


class _Callable:
    """What a global stands for: can be called, and cannot be altered by the pickle as a function or a class could."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., object]) -> None:
        self._make = make

    def __call__(self, *arguments: object) -> object:
        return self._make(*arguments)

    def __setstate__(self, state: object) -> None:
        raise RefusedPickle("it alters a function")


def _array(content: str | bytes | bytearray, dtype: _Dtype, shape: object, order: object) -> np.ndarray[Any, Any]:
    if not isinstance(shape, tuple) or not all(type(side) is int and side >= 0 for side in shape):
        raise RefusedPickle(f"an array of shape {shape!r}")
    if order not in ("C", "F"):
        raise RefusedPickle(f"an array in order {order!r}")
    plain = dtype.numpy()
    if len(content) != math.prod(shape) * plain.itemsize:
        raise RefusedPickle(f"an array of shape {shape} and {len(content)} bytes")
    # A bytearray, because PyTorch shares the memory and must be able to write to it. Python 2's strings come as latin1.
    memory = bytearray(content, "latin1") if isinstance(content, str) else bytearray(content)
    flat = np.frombuffer(memory, plain)
    if not plain.isnative:
        flat = flat.byteswap(inplace=True).view(plain.newbyteorder("="))
    return flat.reshape(shape, order="C" if order == "C" else "F")


def _array_begun(*arguments: object) -> PickledArray:
    match arguments:
        case (subtype, tuple(), _) if subtype is _NDARRAY:
            return PickledArray()
        case _:
            raise RefusedPickle("an array of an unusual class")


def _array_from_buffer(content: object, dtype: object, shape: object, order: object, *axes: object) -> PickledArray:
    if not isinstance(content, bytes | bytearray) or not isinstance(dtype, _Dtype) or any(axes):
        raise RefusedPickle("an array whose content is not plain bytes")
    array = PickledArray()
    array._values = _array(content, dtype, shape, order)
    return array


def _dtype(code: object, align: object = False, copy: object = True) -> _Dtype:
    return _Dtype(code)


def _bytes(text: object = "", encoding: object = "latin1") -> bytes:
    """Bytes as Python 3 writes them in protocols up to 2: ``codecs.encode(text, "latin1")``, or ``bytes()``."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise RefusedPickle("bytes in an unusual encoding")
    return text.encode("latin1")


def _ordered_dict(pairs: object = ()) -> dict[Any, Any]:
    if not isinstance(pairs, list | tuple):
        raise RefusedPickle("an OrderedDict of something unusual")
    return dict(pairs)


def _never(*_: object) -> object:
    raise RefusedPickle("an array that is not made as NumPy makes them")


_NDARRAY: Final = _Callable(_never)

_GLOBALS: Final[Mapping[str, _Callable]] = {
    "numpy.ndarray": _NDARRAY,
    "numpy.dtype": _Callable(_dtype),
    "numpy.core.multiarray._reconstruct": _Callable(_array_begun),
    "numpy._core.multiarray._reconstruct": _Callable(_array_begun),  # NumPy 2
    "numpy.core.numeric._frombuffer": _Callable(_array_from_buffer),  # protocol 5
    "numpy._core.numeric._frombuffer": _Callable(_array_from_buffer),
    "_codecs.encode": _Callable(_bytes),
    "__builtin__.bytes": _Callable(_bytes),
    "collections.OrderedDict": _Callable(_ordered_dict),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        name = f"{module_name}.{global_name}"
        if name not in _GLOBALS:
            raise RefusedGlobal(name)
        return _GLOBALS[name]


def read_arrays(file: IO[bytes]) -> object:
    """Read a pickle of dicts, lists, tuples, strings, numbers and numeric arrays, of Python 2 or 3, any protocol.

    Returns:
        What was pickled; Python 2's byte strings as str (latin1), ordered dicts as dicts, arrays as `PickledArray`.

    Raises:
        RefusedGlobal: it names a function or a class other than those that make such arrays.
        RefusedPickle: an array has objects for elements, or is not as NumPy writes it.
        Exception: it is damaged; Python's unpickler raises many types for that.
    """
    return _Unpickler(file, encoding="latin1").load()
