"""What the live page shows, as plain values: backends, tool hosts, sessions, the queue.

Reads the policy and changes nothing. ``None`` is unknown, and stays ``None``: an idle backend and one that
does not say must not look alike.
"""

from collections.abc import Iterable
from itertools import islice
from typing import Any

from marsproxy.core.admission import HoldQueue
from marsproxy.core.commands import Reason
from marsproxy.core.headroom import ALL_HOSTS, BackendState
from marsproxy.core.policy import Policy
from marsproxy.core.scheduling import SchedulingPolicy
from marsproxy.core.tenant_limits import LIMIT_REASONS, LimitedPolicy
from marsproxy.live.story import SessionLog, State
from marsproxy.live.watch import SeenTurn, Watch
from marsproxy.live.words import WHY, tokens

MAX_HELD_ROWS = 40
MAX_HOST_ROWS = 64
LANE_WINDOW_S = 300.0
"""What lanes show; a session that has been at rest or over for longer is not listed."""
MAX_SHOWN_MARKS = 16
"""Of one lane, when the page is opened."""


def backend_rows(policy: SchedulingPolicy, watch: Watch, now: float, stale_s: float) -> list[dict[str, Any]]:
    reserved, budgets = policy.reserved_tokens(now), policy.budget_tokens(now)
    return [
        _backend_row(
            state, watch, reserved.get(name), budgets.get(name), is_fresh=state.is_fresh(now, stale_s)
        )
        for name, state in policy.backends.items()
    ]


def _backend_row(
    state: BackendState, watch: Watch, reserved: float | None, budget: float | None, *, is_fresh: bool
) -> dict[str, Any]:
    reading = watch.readings.get(state.name) if is_fresh else None
    pool = state.kv_tokens_total if is_fresh else None
    ratio = None if reading is None else reading.kv_used_ratio
    leased = None if reading is None else reading.kv_leased_tokens
    used = None if pool is None or ratio is None else round(pool * ratio)
    free = None
    if pool is not None and used is not None and reading is not None:
        may_lease = reading.takes_hints and leased is None
        free = None if may_lease else max(0, pool - used - (leased or 0))
    return {
        "name": state.name,
        "state": _backend_state(state, is_fresh=is_fresh),
        "takes_hints": state.takes_hints,
        "pool": pool,
        "used": used,
        "leased": leased,
        "free": free,
        "reserved": None if reserved is None else round(reserved),
        "budget": None if budget is None else round(budget),
        "running": None if reading is None else reading.running,
        "waiting": None if reading is None else reading.waiting,
        "sessions": len(state.counted),
    }


def _backend_state(state: BackendState, *, is_fresh: bool) -> str:
    if state.has_left:
        return "gone"
    if not state.is_reachable:
        return "unreachable"
    if state.is_draining:
        return "draining"
    return "serving" if is_fresh else "unknown"


def host_rows(policy: SchedulingPolicy, now: float, stale_s: float) -> list[dict[str, Any]]:
    hosts = policy.tool_hosts.each(now, stale_s)
    return [
        {
            "name": "all hosts" if host.host == ALL_HOSTS else host.host,
            "cores": host.cores,
            "running": host.running,
            "queued": host.queued,
            "memory_available_mb": host.memory_available_mb,
            "memory_total_mb": host.memory_total_mb,
            "queue_wait_s": None if host.queue_wait_s is None else round(host.queue_wait_s, 2),
        }
        for host in hosts[:MAX_HOST_ROWS]
    ]


def held_rows(policy: SchedulingPolicy, watch: Watch) -> list[dict[str, Any]]:
    """The first that wait, in order of the queue where it is known, else in that of their waiting. Waiting
    times are told as their beginnings, so that a row changes only when something does."""
    inner = policy.inner if isinstance(policy, LimitedPolicy) else policy
    queue = inner.held if isinstance(inner, Policy) else ()
    rows = [
        _held_row(watch.turns[held.turn_id], held.reason, policy)
        for held in islice(_known(queue, watch), MAX_HELD_ROWS)
    ]
    for turn in islice(watch.holding.values(), 10 * MAX_HELD_ROWS):
        if len(rows) >= MAX_HELD_ROWS:
            break
        if turn.held is not None and (turn.held.reason in LIMIT_REASONS or not isinstance(inner, Policy)):
            rows.append(_held_row(turn, turn.held.reason, policy))
    return rows


def _known(queue: HoldQueue | Iterable[Any], watch: Watch) -> Iterable[Any]:
    return (held for held in queue if held.turn_id in watch.turns)


def _held_row(turn: SeenTurn, reason: Reason, policy: SchedulingPolicy) -> dict[str, Any]:
    session = policy.sessions.get(turn.session_id)
    why = WHY[reason]
    if reason is Reason.KV_FULL and session is not None and session.needed_tokens is not None:
        why += f"; it needs {tokens(session.needed_tokens)}"
    since_s = turn.arrived_s if turn.held_s is None else turn.held_s
    return {"session": turn.session_id, "since": round(since_s, 3), "reason": reason.value, "why": why}


def session_row(session_id: str, log: SessionLog, policy: SchedulingPolicy) -> list[Any]:
    """As short as it can be: there are thousands. Id, state, since when, backend, context, turns."""
    session = policy.sessions.get(session_id)
    if session is None:
        return [session_id, log.state.value, round(log.since_s, 3), None, None, None]
    return [
        session_id,
        log.state.value,
        round(log.since_s, 3),
        session.backend,
        session.context_tokens or None,
        session.turns,
    ]


def is_shown(log: SessionLog, now: float) -> bool:
    return log.state not in (State.IDLE, State.OVER) or now - log.touched_s <= LANE_WINDOW_S


def lane(log: SessionLog, now: float) -> list[list[Any]]:
    """Its states of late, each with when it began."""
    marks = list(log.marks)
    first = next((i for i, (at_s, _) in enumerate(marks) if at_s > now - LANE_WINDOW_S), len(marks))
    shown = marks[max(0, first - 1) :][-MAX_SHOWN_MARKS:]
    return [[round(at_s, 3), state.value] for at_s, state in shown]
