"""Where a request without a session id belongs: by what it carries back of what we have seen.

Three things come back: ids of stored responses, ids of tool calls, and the history itself. The rules, the
most specific first:

1. The same messages as a turn that was lost: RETRY. If the client says that it is a retry, also of a turn
   in flight (we have not seen it hang up yet) or answered.
2. ``previous_response_id``: CONTINUATION of the turn that got that response, a fork if that one has been
   continued already.
3. The latest echoed tool-call id that one live session alone was given: that session. (An answer in
   between that came word for word from another session wins: a fork copies the ids of its parent.)
4. The longest leading part that is some session's request with its answer: CONTINUATION. If several
   sessions in their gaps share it, nothing in the request tells them apart: it goes to the one that has
   waited longest. A session whose turn is in flight, or that went on already, is never a candidate.
5. The latest answer of an idle session somewhere in the history, with a second sign (the first two
   messages are the same, or another message that this session is known by): CONDENSED.
6. The longest leading part that is some session's request alone, the answer dropped or rewritten by the
   client: CONTINUATION, among several as in 4.
7. The same messages as an answered turn that nobody has continued: regenerated, RETRY; unless it was a
   session's first turn: a second sample, NEW. Concurrent ones are samples too: never merged.
8. The prefix belongs to a turn that has been continued: a fork, that is a child session.
9. A new session.
"""

from typing import NamedTuple

from marsproxy.core.evidence import Level, TurnEvidence, TurnKind
from marsproxy.core.frontiers import Fit, Frontier, Session, State
from marsproxy.core.history import History, PrefixKey
from marsproxy.core.placement import Placement, branched, condensed, continued, repeated
from marsproxy.core.tenant import Tenant

_MAX_SHARERS = 64
"""Sessions with one answer, or one request, that are told apart; what more share is a common phrase."""


def place_unnamed(evidence: TurnEvidence, history: History, tenant: Tenant) -> Placement:
    placement = (
        _again(evidence, history, tenant)
        or _after_response(evidence, history, tenant)
        or _after_call(evidence, history, tenant)
        or _after_prefix(history, tenant)
    )
    return placement or Placement(TurnKind.FIRST, Level.NEW)


def _again(evidence: TurnEvidence, history: History, tenant: Tenant) -> Placement | None:
    """Rule 1."""
    key = history.request_key
    if (lost := tenant.requests.first(key, State.LOST)) is not None:
        return repeated(lost, Level.PREFIX)
    if not evidence.is_stated_retry or _was_taken(key, tenant):
        return None
    again = tenant.requests.first(key, State.RUNNING) or tenant.requests.first(key, State.WAITING)
    return repeated(again, Level.PREFIX) if again is not None else None


def _was_taken(key: PrefixKey, tenant: Tenant) -> bool:
    """Whether the lost turn that this retry means may have gone to another sample, one that did not call
    itself a retry. Then the turns that are left are not meant."""
    return any(frontier.is_contested for frontier in tenant.requests.some(key, _MAX_SHARERS))


def _after_response(evidence: TurnEvidence, history: History, tenant: Tenant) -> Placement | None:
    """Rule 2, and 7 for the responses API."""
    if evidence.previous_response_id is None:
        return None
    frontier = tenant.responses.sole(evidence.previous_response_id)
    if frontier is None:
        return None
    if frontier.is_open:
        return continued(frontier.session, Level.BODY, 0)
    return _regenerated(history, tenant, Level.BODY) or branched(frontier.session, Level.BODY, 0)


def _regenerated(history: History, tenant: Tenant, level: Level) -> Placement | None:
    """Rule 7."""
    frontier = tenant.requests.first(history.request_key, State.WAITING)
    return repeated(frontier, level) if frontier is not None and frontier.turn > 1 else None


def _after_call(evidence: TurnEvidence, history: History, tenant: Tenant) -> Placement | None:
    """Rule 3."""
    session = _caller(evidence, tenant)
    if session is None:
        return None
    fit = session.fit(history) or Fit(session.frontiers[0], 0)
    found = _longest_prefix(history, tenant)
    if found is not None and found.is_verbatim and found.is_open and found.matched > fit.matched:
        return None
    if fit.matched and fit.frontier.is_open:
        if fit.frontier.length == len(history):
            return repeated(fit.frontier, Level.CALL_ID)
        return continued(session, Level.CALL_ID, fit.matched)
    is_fork = fit.matched > 0 and not _echoes_latest(evidence, session)
    if session.is_busy or is_fork:
        return branched(session, Level.CALL_ID, fit.matched)
    return condensed(session, Level.CALL_ID, fit.matched)


def _caller(evidence: TurnEvidence, tenant: Tenant) -> Session | None:
    for call_id in reversed(evidence.echoed_call_ids):
        frontier = tenant.call_ids.sole(call_id)
        if frontier is not None:
            return frontier.session
    return None


def _echoes_latest(evidence: TurnEvidence, session: Session) -> bool:
    echoed = set(evidence.echoed_call_ids)
    return any(f.state is State.WAITING and not echoed.isdisjoint(f.call_ids) for f in session.frontiers)


class _Found(NamedTuple):
    frontier: Frontier
    matched: int
    is_verbatim: bool
    """Our answer came back as we gave it."""

    @property
    def is_open(self) -> bool:
        return self.frontier.is_open


def _longest_prefix(history: History, tenant: Tenant) -> _Found | None:
    """Of the frontiers that the most messages lead to, the one to continue, or else any to fork from.

    A request with nothing after it is no continuation: the last key is looked up among replies only.
    """
    replies, requests = tenant.replies.keys(), tenant.requests.keys()
    for length in range(len(history), 0, -1):
        key = history.keys[length]
        in_replies = key in replies
        in_requests = key in requests and length < len(history)
        if not in_replies and not in_requests:
            continue
        for state in (State.WAITING, State.LOST, State.CLOSED, State.RUNNING):
            if in_replies and (frontier := tenant.replies.first(key, state)) is not None:
                return _Found(frontier, length, is_verbatim=True)
            if in_requests and (frontier := tenant.requests.first(key, state)) is not None:
                return _Found(frontier, length, is_verbatim=False)
    return None


def _after_prefix(history: History, tenant: Tenant) -> Placement | None:
    """Rules 4 to 8."""
    found = _longest_prefix(history, tenant)
    if found is not None and found.is_open and found.is_verbatim:
        return continued(found.frontier.session, Level.PREFIX, found.matched)
    matched = found.matched if found is not None else 0
    if (session := _rewritten_session(history, tenant, matched)) is not None:
        return condensed(session, Level.PREFIX, matched)
    if found is not None and found.is_open:
        return continued(found.frontier.session, Level.PREFIX, found.matched)
    if (again := _regenerated(history, tenant, Level.PREFIX)) is not None:
        return again
    return branched(found.frontier.session, Level.PREFIX, matched) if found is not None else None


def _rewritten_session(history: History, tenant: Tenant, matched: int) -> Session | None:
    """Rule 5: the one idle session whose latest answer comes after the ``matched`` messages."""
    rest = set(history.digests[matched:])
    sessions: set[Session] = set()
    for digest in rest & tenant.answers.keys():
        owners = tenant.answers.few(digest, _MAX_SHARERS)
        sessions |= {f.session for f in owners if f.state is State.WAITING}
    signs = {session: _signs(session, history, rest) for session in sessions}
    best = max(signs.values(), default=0)
    winners = [session for session, count in signs.items() if count == best]
    return winners[0] if best >= 2 and len(winners) == 1 else None


def _signs(session: Session, history: History, rest: set[bytes]) -> int:
    known = {digest for f in session.frontiers for digest in (*f.answers, *f.tail)}
    return len(known & rest) + (len(history) > 1 and history.lead[1] == session.lead[1])
