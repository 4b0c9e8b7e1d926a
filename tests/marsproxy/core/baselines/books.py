"""Playbooks for other policies than the one that ``Playbook`` makes by itself, and their word for going."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from marsproxy.core.commands import ForwardTurn
from marsproxy.core.scheduling import SchedulingPolicy
from marsproxy.core.settings import PolicySettings, SessionSettings
from tests.marsproxy.core.playbook import ANY, POOL_TOKENS, ROUND_NUMBERS, Playbook, reading


def goes(turn_id: str, decision: str = "new", *, backend: str = "gpu", priority: int = ANY) -> ForwardTurn:
    """No baseline keeps new sessions off the blocks of others."""
    return ForwardTurn(turn_id, backend, priority, decision, may_break_leases=True)


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
