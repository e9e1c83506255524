"""An unpickler that builds plain containers and calls only the functions it is given."""

from __future__ import annotations

import collections
import pickle
from collections.abc import Callable, Mapping
from typing import IO, Any

# The opcodes in pickles of tensors, arrays and plain containers, in protocols 0 to 5. INST, OBJ,
# NEWOBJ, EXT and the like, by which a pickle creates objects of classes, are left out.
_OPCODES = """
PROTO FRAME STOP MARK PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET
NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8
EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST APPEND APPENDS
EMPTY_DICT DICT SETITEM SETITEMS GLOBAL STACK_GLOBAL REDUCE BUILD BINPERSID
"""

# A key is hashed, and hashing nested tuples can take forever.
_KEY_TYPES = (str, bytes, int, float, bool, type(None))


class SafeUnpickler(pickle._Unpickler):
    """Python's own unpickler, the one written in Python, with fewer opcodes and with checks.

    In the one written in C, opcodes cannot be restricted, and a damaged file could make it allocate
    any amount of memory.

    Args:
        file: read to the end of the pickle and no further. If it is in memory, no more than its
            size is allocated.
        allowed: "module.name" -> its stand-in. A pickle can call nothing else.
        persistent_load: returns a stand-in for what torch.save keeps outside the pickle.
    """

    dispatch = {
        getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]]
        for name in _OPCODES.split()
    }

    def __init__(
        self,
        file: IO[bytes],
        allowed: Mapping[str, Any],
        persistent_load: Callable[[Any], Any] | None = None,
    ) -> None:
        # Python 3 reads arrays that Python 2 pickled with latin1.
        super().__init__(file, encoding="latin1")
        self._allowed = allowed
        if persistent_load is not None:
            self.persistent_load = persistent_load

    def find_class(self, module_name: str, global_name: str) -> Any:
        name = f"{module_name}.{global_name}"
        if name not in self._allowed:
            raise pickle.UnpicklingError(f"GLOBAL {name} is not allowed")
        return self._allowed[name]

    def load_bytearray8(self) -> None:
        length = int.from_bytes(self.read(8), "little")
        self.append(bytearray(self.read(length)))

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append(_filled({}, items))

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _filled(self.stack[-1], [key, value])

    def load_setitems(self) -> None:
        items = self.pop_mark()
        _filled(self.stack[-1], items)

    def load_build(self) -> None:
        state, instance = self.stack.pop(), self.stack[-1]
        if type(instance) is collections.OrderedDict:
            # The version numbers of a state dict's modules.
            if type(state) is not dict:
                raise pickle.UnpicklingError("an attribute of an OrderedDict has no name")
            vars(instance).update(state)
        elif isinstance(instance, Buildable):
            instance.build(state)
        else:
            raise pickle.UnpicklingError(f"a {type(instance).__name__} has no state")

    dispatch |= {
        pickle.BYTEARRAY8[0]: load_bytearray8,
        pickle.DICT[0]: load_dict,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.BUILD[0]: load_build,
    }


class Buildable:
    """An object to which a pickle may give a state."""

    def build(self, state: Any) -> None:
        raise NotImplementedError


def _filled(mapping: Any, items: list[Any]) -> dict[Any, Any]:
    if not isinstance(mapping, dict) or len(items) % 2:
        raise pickle.UnpicklingError("items outside a dict")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) not in _KEY_TYPES:
            raise pickle.UnpicklingError(f"a {type(key).__name__} as a key of a dict")
        mapping[key] = value
    return mapping


def _ordered_dict(*items: Any) -> collections.OrderedDict:
    """Stands in for ``OrderedDict``: empty, or from a list of pairs, as in Python 2's pickles."""
    pairs = items[0] if items else []
    return _filled(
        collections.OrderedDict(), [part for key, value in pairs for part in (key, value)]
    )


def _encode(text: str, encoding: str) -> bytes:
    """Stands in for ``_codecs.encode``, with which protocol 2 writes bytes, always as latin1."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes are encoded as {encoding}, not as latin1")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """Stands in for ``bytes``, with which protocol 2 writes empty bytes."""
    return b""


# The functions that pickles of plain containers may call.
CONTAINERS: dict[str, Any] = {
    "collections.OrderedDict": _ordered_dict,
    "_codecs.encode": _encode,
    "__builtin__.bytes": _no_bytes,
}
