"""What a request says about its session: the ``mars_*`` members of its ``vllm_xargs``.

Owns the reading. All of it is advice from outside: a value that makes no sense is taken for absent.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from backend_patch.protocol import MAX_NAME_CHARS, LeaseMode, TurnClass, XArg

BODY_SESSION = "session_id"
"""vLLM's own name in ``vllm_xargs``, the last place that it looks in itself."""

E = TypeVar("E", bound=StrEnum)


class SamplingLike(Protocol):
    @property
    def extra_args(self) -> Any: ...


class RequestLike(Protocol):
    """Of vLLM's ``Request``. Both may be missing altogether."""

    @property
    def sampling_params(self) -> SamplingLike | None: ...

    @property
    def session_id(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class RequestMeta:
    session: str | None = None
    """None: not of any session, and of no concern to leases."""
    branch: str = ""
    ttl_s: float = 0.0
    """0: no lease asked for."""
    mode: LeaseMode = LeaseMode.SOFT
    is_final: bool = False
    turn_class: TurnClass | None = None

    @property
    def key(self) -> tuple[str, str] | None:
        return None if self.session is None else (self.session, self.branch)


def read_meta(request: RequestLike) -> RequestMeta:
    sampling = getattr(request, "sampling_params", None)
    extra = getattr(sampling, "extra_args", None)
    args = extra if isinstance(extra, Mapping) else {}
    names = (args.get(XArg.SESSION), getattr(request, "session_id", None), args.get(BODY_SESSION))
    return RequestMeta(
        session=next((each for each in map(_name, names) if each), None),
        branch=_name(args.get(XArg.BRANCH)) or "",
        ttl_s=_seconds(args.get(XArg.TTL_MS)),
        mode=_member(LeaseMode, args.get(XArg.MODE)) or LeaseMode.SOFT,
        is_final=_is_one(args.get(XArg.FINAL)),
        turn_class=_member(TurnClass, args.get(XArg.TURN_CLASS)),
    )


def _name(value: object) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return value if isinstance(value, str) and len(value) <= MAX_NAME_CHARS else None


def _is_one(value: object) -> bool:
    """Only of what compares without raising: a signalling decimal does not."""
    return isinstance(value, str | int | float) and value in (1, "1")


def _seconds(milliseconds: object) -> float:
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, str | int | float):
        return 0.0
    try:
        seconds = float(milliseconds) / 1e3
    except (ValueError, OverflowError):
        return 0.0
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0


def _member(kind: type[E], value: object) -> E | None:
    if not isinstance(value, str):
        return None
    try:
        return kind(value)
    except ValueError:
        return None
