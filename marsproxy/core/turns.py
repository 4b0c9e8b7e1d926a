"""How a turn moves its session on: what opens, what closes, what opens again.

Owns the life of a frontier (``frontiers`` draws it). It must not decide where a request belongs: that
comes in as a ``Placement``.
"""

from marsproxy.core.evidence import Digest, TurnEvidence, TurnKind
from marsproxy.core.frontiers import Frontier, Session, State
from marsproxy.core.history import History
from marsproxy.core.placement import Placement
from marsproxy.core.tenant import Tenant

_TAIL_MESSAGES = 2
"""Latest client messages kept to recognise a rewritten history by: a tool result or two."""


def open_turn(
    tenant: Tenant,
    placement: Placement,
    session: Session,
    evidence: TurnEvidence,
    history: History,
    most: int,
) -> Frontier | None:
    """The frontier that the request works on, RUNNING; None for a side call, which has none. Of a
    session, ``most`` frontiers are kept."""
    match placement.kind:
        case TurnKind.SIDE:
            session.side = (len(history), history.request_key)
            return None
        case TurnKind.RETRY:
            assert placement.again is not None, "a retry names the turn that it repeats"
            frontier = placement.again
            if frontier.state is State.LOST and not evidence.is_stated_retry:
                frontier.is_contested = True
        case TurnKind.FIRST:
            _clear(tenant, session)
            frontier = _append(tenant, session, evidence, history, ())
        case TurnKind.CONTINUATION | TurnKind.CONDENSED:
            tail = _tail(history, placement.matched)
            frontier = _append(tenant, session, evidence, history, tail)
    frontier.attempts += 1
    tenant.move(frontier, State.RUNNING)
    for earlier in frontier.superseded:
        if earlier.is_open:
            tenant.move(earlier, State.CLOSED)
    _trim(tenant, session, frontier, most)
    return frontier


def settle(tenant: Tenant, frontier: Frontier) -> None:
    """An attempt at the turn is over, with or without an answer."""
    session = frontier.session
    if frontier not in session.frontiers:
        return
    if frontier.attempts or frontier.state is not State.RUNNING:
        return
    tenant.move(frontier, _resting_state(frontier))
    for earlier in frontier.superseded:
        if earlier in session.frontiers and earlier.state is State.CLOSED:
            tenant.move(earlier, _resting_state(earlier))


def _resting_state(frontier: Frontier) -> State:
    """Answered late, after the session went on without it, it is CLOSED at once."""
    later = frontier.session.frontiers[frontier.session.frontiers.index(frontier) + 1 :]
    if any(f.state is not State.LOST and not f.is_detour for f in later):
        return State.CLOSED
    return State.WAITING if frontier.is_answered else State.LOST


def _append(
    tenant: Tenant, session: Session, evidence: TurnEvidence, history: History, tail: tuple[Digest, ...]
) -> Frontier:
    session.has_tools = session.has_tools or evidence.has_tools
    session.turn += 1
    frontier = Frontier(
        session=session,
        turn=session.turn,
        length=len(history),
        request_key=history.request_key,
        has_tools=evidence.has_tools,
        tail=tail,
    )
    if not frontier.is_detour:
        session.lead = history.lead
        frontier.superseded = tuple(f for f in session.frontiers if f.is_open)
    tenant.add(frontier)
    return frontier


def _tail(history: History, matched: int) -> tuple[Digest, ...]:
    return tuple(history.digests[max(matched, len(history) - _TAIL_MESSAGES) :])


def _clear(tenant: Tenant, session: Session) -> None:
    """A title call had come before the first turn: it becomes a side call of the session."""
    for frontier in list(session.frontiers):
        session.side = (frontier.length, frontier.request_key)
        tenant.drop(frontier)
    session.turn = 0


def _trim(tenant: Tenant, session: Session, latest: Frontier, most: int) -> None:
    """Forget the closed frontiers first, then detours, then the oldest."""
    while len(session.frontiers) > most:
        others = [f for f in session.frontiers if f is not latest]
        if not others:
            return
        tenant.drop(min(others, key=lambda f: (f.is_open and not f.is_detour, f.is_open, f.turn)))
