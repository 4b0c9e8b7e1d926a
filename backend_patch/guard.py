"""Nothing that the patch does may stop the engine: an error in a hook ends the patch's work, not vLLM's.

Owns the decorator. An exception that leaves a scheduler's method kills vLLM's engine process.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class StepsAside(Protocol):
    passthrough: str | None
    """Why it has stepped aside; None while it works."""

    def step_aside(self, hook: str, error: Exception) -> None: ...


S = TypeVar("S", bound=StepsAside)


class Guarded(Generic[T]):
    """Decorates methods: one that fails answers ``otherwise``, and from then on without being called."""

    def __init__(self, otherwise: T) -> None:
        self._otherwise = otherwise

    def __call__(self, hook: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R | T]:
        otherwise, name = self._otherwise, cast(Any, hook).__name__

        def safe(patch: S, *args: P.args, **kwargs: P.kwargs) -> R | T:
            if patch.passthrough is not None:
                return otherwise
            try:
                return hook(patch, *args, **kwargs)
            except Exception as error:  # noqa: BLE001 - whatever it is, the engine serves on
                patch.step_aside(name, error)
                return otherwise

        return cast(Callable[Concatenate[S, P], R | T], wraps(hook)(safe))


def ignore_errors(action: Callable[[], object]) -> None:
    """For what is tidied up after an error."""
    with suppress(Exception):
        action()
