"""Digests of Python values by what they hold, the same in every process.

Functions are told by their code, defaults and cells, objects by their class and attributes, tensors
by their bytes. What holds none of these (a generator, a handle) can't be told.
"""

import dis
import enum
import functools
import hashlib
import logging
import threading
import types
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch

_PLAIN = (str, bytes, int, float, complex, bool, type(None), type(...), range, slice)
# nothing that a picture depends on: where something computes, what it is called, who waits for it
_IGNORED = (
    torch.device,
    uuid.UUID,
    logging.Logger,
    type(threading.Lock()),
    type(threading.RLock()),
)
# the metadata of a dataclass's field that no picture depends on: what was measured, or made from
NOT_DIGESTED = {"digested": False}
_OF_MODULES = vars(torch.nn.Module()).keys()
# what ComfyUI writes to the modules of a network when it loads it
_OF_LOADING = ("comfy_", "prev_comfy_", "weight_", "bias_", "_v")


class Digest:
    """SHA-256 of values. `untold` are those which hold what can't be told, in words.

    `named` are objects that are told by a name. Subclasses tell more kinds in `special`.
    """

    def __init__(self) -> None:
        self.untold: list[str] = []
        self.named: dict[int, str] = {}
        self._known: dict[int, tuple[bytes, object]] = {}  # with the value: its id stays its own

    def of(self, value: Any) -> bytes:
        if isinstance(value, _PLAIN):
            return _hashed(type(value).__name__, repr(value))
        if isinstance(value, _IGNORED):
            return _hashed("ignored")
        if id(value) in self.named:
            return _hashed("named", self.named[id(value)])
        if id(value) not in self._known:
            self._known[id(value)] = _hashed("what holds it"), value
            self._known[id(value)] = self._of(value), value
        return self._known[id(value)][0]

    def all(self, kind: str, *values: Any) -> bytes:
        return _hashed(kind, *map(self.of, values))

    def special(self, value: Any) -> bytes | None:
        """The digest of a value of a kind that is told in its own way, or None."""

    def _of(self, value: Any) -> bytes:
        special = self.special(value)
        if special is not None:
            return special
        for kind, method in _KINDS:
            if isinstance(value, kind):
                return method(self, value)
        return self._object(value)

    def _tensor(self, value: torch.Tensor) -> bytes:
        plain = value.detach()
        if type(plain) not in (torch.Tensor, torch.nn.Parameter):  # quantised
            plain = plain.dequantize()
        held = plain.cpu().contiguous().flatten().view(torch.uint8).numpy().data
        return _hashed("tensor", f"{value.dtype}{tuple(value.shape)}", held)

    def _array(self, value: np.ndarray) -> bytes:
        if value.dtype.hasobject:
            return self.all("objects", value.tolist())
        return _hashed("array", f"{value.dtype}{value.shape}", np.ascontiguousarray(value).data)

    def _mapping(self, value: Mapping[str, Any]) -> bytes:
        """In any order, without what a run, or a clone, leaves there empty."""
        items = (
            self.of(key) + self.of(each)
            for key, each in value.items()
            if not (isinstance(key, torch.device) or (isinstance(each, (dict, list)) and not each))
        )
        return _hashed("mapping", *sorted(items))

    def _function(self, value: types.FunctionType) -> bytes:
        code, cells = value.__code__, {}
        written = set(_written(code))
        for name, cell in zip(code.co_freevars, value.__closure__ or (), strict=True):
            if name in written:
                self.untold.append(f"{value.__qualname__} keeps {name!r} from call to call")
            else:
                cells[name] = cell
        return self.all(
            "function", code, value.__defaults__, value.__kwdefaults__, cells, vars(value)
        )

    def _cell(self, value: types.CellType) -> bytes:
        try:
            return self.of(value.cell_contents)
        except ValueError:
            return _hashed("empty cell")

    def _code(self, value: types.CodeType) -> bytes:
        return self.all(
            "code", value.co_code, value.co_consts, value.co_names, value.co_varnames,
            value.co_freevars, value.co_flags,
        )  # fmt: skip

    def _class(self, value: type) -> bytes:
        """Its name, and the code of its methods but the libraries'."""
        methods = [
            [getattr(each, "__func__", getattr(each, "fget", each)) for each in vars(base).values()]
            for base in value.__mro__
            if base.__module__.partition(".")[0] not in ("builtins", "torch", "abc", "enum")
        ]
        codes = [each.__code__ for some in methods for each in some if hasattr(each, "__code__")]
        return self.all("class", value.__qualname__, codes)

    def _network(self, value: torch.nn.Module) -> bytes:
        """A network that is not one of those named: its class, settings, tensors and parts."""
        if hasattr(value, "_orig_mod"):  # compiled
            return self.of(value._orig_mod)
        settings = {
            name: each
            for name, each in vars(value).items()
            if name not in _OF_MODULES and not name.startswith(_OF_LOADING)
        }
        parts = (settings, value._parameters, value._buffers, value._modules)
        return self.all("network", type(value), *parts)

    def _object(self, value: Any) -> bytes:
        slots = [name for base in type(value).__mro__ for name in _slots(base)]
        slots = [name for name in slots if hasattr(value, name)]
        if not hasattr(value, "__dict__") and not slots and type(value) is not object:
            self.untold.append(f"it holds a {type(value).__qualname__}")
        held = getattr(value, "__dict__", {}) | {name: getattr(value, name) for name in slots}
        fields = getattr(type(value), "__dataclass_fields__", {})
        held = {
            name: each
            for name, each in held.items()
            if not (name in fields and fields[name].metadata == NOT_DIGESTED)
        }
        return self.all("object", type(value), held)


# each takes a value of its own kind
_KINDS: tuple[tuple[Any, Callable[[Digest, Any], bytes]], ...] = (
    (torch.Tensor, Digest._tensor),
    (np.ndarray, Digest._array),
    (enum.Enum, lambda digest, value: digest.all("enum", type(value), value.name)),
    # not as an object: it keeps its hash, which is another one in every process
    (PurePath, lambda _, value: _hashed("path", value.as_posix())),
    ((torch.dtype, np.generic, np.dtype), lambda _, value: _hashed(repr(value))),
    (Mapping, Digest._mapping),
    ((list, tuple), lambda digest, value: digest.all("list", *value)),
    ((set, frozenset), lambda digest, value: _hashed("set", *sorted(map(digest.of, value)))),
    (types.FunctionType, Digest._function),
    (types.MethodType, lambda digest, of: digest.all("method", of.__func__, of.__self__)),
    (
        functools.partial,
        lambda digest, of: digest.all("partial", of.func, of.args, of.keywords),
    ),
    (
        types.BuiltinFunctionType,
        lambda digest, of: digest.all("builtin", of.__qualname__, of.__self__),
    ),
    (types.CellType, Digest._cell),
    (types.CodeType, Digest._code),
    (types.ModuleType, lambda _, value: _hashed("module", value.__name__)),
    (weakref.ref, lambda digest, value: digest.of(value())),
    (type, Digest._class),
    (torch.nn.Module, Digest._network),
)


def _hashed(*parts: str | bytes | memoryview) -> bytes:
    """Of parts of any length: each is told from the next."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(hashlib.sha256(raw).digest())
    return digest.digest()


def _slots(base: type) -> list[str]:
    names = vars(base).get("__slots__", ())
    names = [names] if isinstance(names, str) else names
    return [name for name in names if name not in ("__dict__", "__weakref__")]


def _written(code: types.CodeType) -> Iterator[str]:
    """The variables of outer functions that a function, or one inside it, assigns to."""
    for step in dis.get_instructions(code):
        if step.opname in ("STORE_DEREF", "DELETE_DEREF") and step.argval in code.co_freevars:
            yield step.argval
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from (name for name in _written(inner) if name in code.co_freevars)
