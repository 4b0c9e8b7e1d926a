"""Playbooks for other policies than the one that ``Playbook`` makes by itself."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from marsproxy.core.scheduling import SchedulingPolicy
from marsproxy.core.settings import PolicySettings, SessionSettings
from tests.marsproxy.core.playbook import POOL_TOKENS, ROUND_NUMBERS, Playbook, reading


def book(
    make: Callable[[PolicySettings, Sequence[str]], SchedulingPolicy],
    *,
    backends: Sequence[str] = ("gpu",),
    sessions: SessionSettings | None = None,
    pool_tokens: int | None = POOL_TOKENS,
    **changes: Any,
) -> Playbook:
    """``changes`` are admission settings; ``pool_tokens`` of None leaves telemetry unknown."""
    playbook = Playbook(pool_tokens=None)
    settings = PolicySettings(replace(ROUND_NUMBERS, **changes), sessions or SessionSettings())
    playbook.policy = make(settings, backends)
    if pool_tokens is not None:
        for name in backends:
            playbook.at(0, reading(pool_tokens, name))
    return playbook
