"""Records and states as bytes, and the one reader of them that code cannot come in through.

A pickle can name any callable of Python, and whoever can write to the store, or got into a worker, could have
it called. What is read here may only be made by the classes and functions of ``marsproxy.core``, which
do no input or output, and of plain containers. Owns that list; it must not know how the bytes travel.
"""

import io
import pickle
from typing import Any

from marsproxy.core.shared_state import SharedState

OWN_PACKAGE = "marsproxy.core."
PLAIN = {
    "builtins": frozenset(
        ("set", "frozenset", "bytearray", "bytes", "list", "dict", "int", "float", "bool", "tuple", "str")
    ),
    "collections": frozenset(("OrderedDict", "defaultdict", "deque", "Counter")),
}  # fmt: skip
"""Containers, and what a ``defaultdict`` makes. Nothing that calls what it is given."""


class Forbidden(Exception):
    """The bytes ask for something that no record or state is made of, or make no sense."""


def write(content: object) -> bytes:
    return pickle.dumps(content, protocol=5)


def read(data: bytes) -> Any:
    """
    Raises:
        Forbidden
    """
    try:
        return _Restricted(io.BytesIO(data)).load()
    except Forbidden:
        raise
    except Exception as error:
        raise Forbidden(type(error).__name__) from error


def read_state(data: bytes) -> SharedState:
    """
    Raises:
        Forbidden
    """
    state = read(data)
    if not isinstance(state, SharedState):
        raise Forbidden(type(state).__name__)
    return state


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("builtins", "getattr"):
            return _own_method
        is_ours = module.startswith(OWN_PACKAGE) and "." not in name
        if not (is_ours or name in PLAIN.get(module, ())):
            raise Forbidden(f"{module}.{name}")
        found = super().find_class(module, name)
        if is_ours and not getattr(found, "__module__", "").startswith(OWN_PACKAGE):
            raise Forbidden(f"{module}.{name}")  # a name that a module of ours merely imports
        return found


def _own_method(owner: object, name: str) -> Any:
    """How pickle writes down a bound method, which some policies keep."""
    if not type(owner).__module__.startswith(OWN_PACKAGE) or name.startswith("__"):
        raise Forbidden(f"{type(owner).__name__}.{name}")
    return getattr(owner, name)
