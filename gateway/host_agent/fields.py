"""Reading the fields of a request: what is missing or of another type is refused by name."""

from __future__ import annotations

from typing import TypeVar

from gateway.host_agent.operations import Refused
from gateway.host_agent.wire import Fault, Frame

T = TypeVar("T", str, int, bool, float)

_KINDS = {str: "text", int: "a whole number", bool: "true or false", float: "a number"}


def of(request: Frame, name: str, kind: type[T]) -> T:
    value = optional(request, name, kind)
    if value is None:
        raise Refused(Fault.BAD_REQUEST, f"{name}: is missing, must be {_KINDS[kind]}")
    return value


def optional(request: Frame, name: str, kind: type[T]) -> T | None:
    value = request.header.get(name)
    if value is None or type(value) is kind:
        return value
    raise Refused(Fault.BAD_REQUEST, f"{name}: must be {_KINDS[kind]}")


def whole(request: Frame, name: str, *, default: int | None = None) -> int:
    """An offset, a size or a count: not below 0."""
    value = optional(request, name, int)
    if value is None:
        value = default
    if value is None or not 0 <= value < 1 << 63:
        raise Refused(Fault.BAD_REQUEST, f"{name}: must be a whole number of at least 0")
    return value


def one_of(request: Frame, name: str, *allowed: str) -> str:
    value = of(request, name, str)
    if value not in allowed:
        raise Refused(Fault.BAD_REQUEST, f"{name}: must be one of {', '.join(allowed)}")
    return value
