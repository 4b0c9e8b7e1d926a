"""Nothing that the patch does may stop the engine: an error in a hook ends the patch's work, not the hook.

Owns the decorator. An exception that leaves a scheduler's method kills vLLM's engine process.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class StepsAside(Protocol):
    passthrough: str | None
    """Why it has stepped aside; None while it works."""

    def step_aside(self, hook: str, error: Exception) -> None: ...


S = TypeVar("S", bound=StepsAside)


def guarded(
    otherwise: R,
) -> Callable[[Callable[Concatenate[S, P], R]], Callable[Concatenate[S, P], R]]:
    """The method answers ``otherwise`` when it has failed, and from then on without being called."""

    def guard(hook: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
        name: str = getattr(hook, "__name__", "hook")

        @wraps(hook)
        def safe(self: S, *args: P.args, **kwargs: P.kwargs) -> R:
            if self.passthrough is not None:
                return otherwise
            try:
                return hook(self, *args, **kwargs)
            except Exception as error:  # noqa: BLE001 - whatever it is, the engine serves on
                self.step_aside(name, error)
                return otherwise

        return safe

    return guard


def ignore_errors(action: Callable[[], Any]) -> None:
    """For what is tidied up after an error."""
    try:
        action()
    except Exception:  # noqa: BLE001 - the first error has been logged
        return
