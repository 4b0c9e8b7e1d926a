"""Whose overdue places make room for a turn: on one backend, where that gives it room if it can.

A place is given up where the turn can go, and nowhere else; of several such backends on that where enough
is overdue, the longest first. Only chooses; nothing is given up in here.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

from marsproxy.core.budgets import Budgets
from marsproxy.core.fleet import Wanted
from marsproxy.core.sessions import SessionState

MAX_YIELDING = 32
"""Overdue sessions that are asked for their places at a time."""


@dataclass(slots=True)
class _Offer:
    lack_tokens: float
    """What is missing for the turn once all of these have gone."""
    sessions: list[SessionState] = field(default_factory=list)


def yielding(
    budgets: Budgets,
    overdue: Iterable[SessionState],
    session: SessionState,
    context: int,
    wanted: Wanted,
    now: float,
) -> list[SessionState]:
    """Those to ask for their places, one by one until ``session`` fits.

    Args:
        overdue: sessions in gaps that have lasted for too long, the longest first.
    """
    offers: dict[str, _Offer] = {}
    usable = (each for each in overdue if each.is_counted and _is_usable(budgets, each, wanted))
    for each in islice(usable, MAX_YIELDING):
        backend = budgets.backend_of(each)
        if backend.name not in offers:
            pool = budgets.fleet.known_pool(backend, now)
            if pool is None:
                continue
            offers[backend.name] = _Offer(budgets.lack_of(session, backend, context, pool))
        offers[backend.name].lack_tokens -= each.charged_tokens
        offers[backend.name].sessions.append(each)
    enough = next((offer for offer in offers.values() if offer.lack_tokens <= 0), None)
    offer = enough or min(offers.values(), key=lambda offer: offer.lack_tokens, default=None)
    return [] if offer is None else offer.sessions


def _is_usable(budgets: Budgets, holder: SessionState, wanted: Wanted) -> bool:
    backend = budgets.backend_of(holder)
    return backend.is_reachable and not backend.is_draining and budgets.fleet.may_take(backend, wanted)
