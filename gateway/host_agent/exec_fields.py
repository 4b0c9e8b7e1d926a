"""Reads the fields of a request, or says which is wrong and what it may be.

The peer is a gateway of ours, perhaps of another version; nothing that it sends is taken on trust, because an
answer that names the field is worth more than a stack trace on a host far away.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from gateway.host_agent.isolation import LARGEST_UID, LEAST_UID, NO_SANDBOX, SANDBOXES, Isolation
from gateway.host_agent.operations import Refused
from gateway.host_agent.wire import Fault

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}", re.ASCII)
"""Of execs: they are names of directories and of control groups, too."""


def bad(name: str, what: str) -> Refused:
    return Refused(Fault.BAD_REQUEST, f"{name}: {what}", field=name)


def text(fields: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = fields.get(name, default)
    if not isinstance(value, str) or "\0" in value:
        raise bad(name, "must be a string without NUL")
    return value


def exec_name(fields: Mapping[str, Any]) -> str:
    value = text(fields, "exec")
    if not _NAME.fullmatch(value):
        raise bad("exec", "must be 1 to 200 letters, digits, '_', '-', '.', and not begin with '-' or '.'")
    return value


def one_of(fields: Mapping[str, Any], name: str, allowed: tuple[str, ...], default: str | None = None) -> str:
    value = fields.get(name, default)
    if value not in allowed:
        raise bad(name, f"must be one of {', '.join(allowed)}")
    return str(value)


def flag(fields: Mapping[str, Any], name: str) -> bool:
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise bad(name, "must be true or false")
    return value


def number(
    fields: Mapping[str, Any],
    name: str,
    least: float = 0,
    most: float = math.inf,
    default: float | None = None,
) -> float:
    value = fields.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise bad(name, f"must be a number from {least:g} to {most:g}")
    return float(value)


def whole(
    fields: Mapping[str, Any], name: str, least: int = 0, most: int = 1 << 53, default: int | None = None
) -> int:
    value = fields.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise bad(name, f"must be a whole number from {least} to {most}")
    return value


def mapping(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Absent and null are empty."""
    value = fields.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise bad(name, "must be an object")
    return value


def words(fields: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = fields.get(name)
    if (
        not isinstance(value, list)
        or not value
        or not all(isinstance(v, str) and "\0" not in v for v in value)
    ):
        raise bad(name, "must be a list of at least one string, without NUL")
    return tuple(value)


def variables(fields: Mapping[str, Any], name: str) -> dict[str, str]:
    value = mapping(fields, name)
    for key, each in value.items():
        if not key or "=" in key or "\0" in key or not isinstance(each, str) or "\0" in each:
            raise bad(name, "must have strings without NUL, under names without '=' and NUL")
    return value


def isolation(fields: Mapping[str, Any], name: str) -> Isolation:
    asked = mapping(fields, name)
    return Isolation(_uids(asked), one_of(asked, "sandbox", SANDBOXES, NO_SANDBOX))


def _uids(fields: Mapping[str, Any]) -> tuple[int, int] | None:
    value = fields.get("session_uids")
    if value is None:
        return None
    if not isinstance(value, list) or [type(each) for each in value] != [int, int]:
        raise bad("session_uids", "must be two whole numbers, the first and the last of a range")
    first, last = value
    if not LEAST_UID <= first <= last <= LARGEST_UID:
        raise bad("session_uids", f"must be a range within {LEAST_UID} to {LARGEST_UID}")
    return first, last
