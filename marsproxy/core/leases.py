"""What engines are asked to do with a session's blocks between two turns.

A counted session's blocks are to be kept. That is asked for with the turn that leaves them, because by its
end it may be too late: whoever waits for memory is served in the same step. The lease has a deadline of its
own, the end of a quiet gap, so that nothing is kept for ever for a proxy that is gone; all else ends it
sooner: the session's next turn in the engine, a hint from here when the session lost its place or is
over, or somebody who needs the blocks more. A gap may outlast the deadline while the gateway says that a
tool is at work; then the lease is renewed when the engine says that it ran out.

Owns which sessions are worth a lease. Gives orders to backends that take hints and to no others; must not
decide who is counted.
"""

from collections.abc import Mapping

from marsproxy.core.commands import HintKv, KvAction, KvLease, YieldsTo
from marsproxy.core.events import LeaseExpired, LeaseResumed
from marsproxy.core.headroom import BackendState
from marsproxy.core.lease_worth import LeaseWorth
from marsproxy.core.sessions import SessionState


class Leases:
    """
    Args:
        ttl_s: of a lease that is asked for with a turn.
        is_on: nothing is asked for and nothing advised otherwise.
    """

    def __init__(self, backends: Mapping[str, BackendState], ttl_s: float, *, is_on: bool) -> None:
        self._backends = backends
        self._ttl_s = ttl_s
        self._is_on = is_on
        self._worth = LeaseWorth()

    # -- orders -----------------------------------------------------------------------------------

    def try_ask(self, session: SessionState) -> KvLease | None:
        """The lease to go with the session's turn, which is about to be forwarded."""
        if not self._takes_hints(session) or session.is_over:
            return None
        session.is_lease_wanted = self._worth.try_lease(session.id, session.family)
        session.has_lost_lease = False
        return KvLease(self._ttl_s, YieldsTo.RETURNING) if session.is_lease_wanted else None

    def try_keep(self, session: SessionState, ttl_s: float) -> HintKv | None:
        """For a counted session in its gap, where no lease began with the gap."""
        if not self._takes_hints(session) or not session.is_lease_wanted or ttl_s <= 0:
            return None
        assert session.backend is not None
        return HintKv(session.id, session.backend, KvAction.KEEP, ttl_s)

    def try_keep_again(self, session: SessionState, ttl_s: float) -> HintKv | None:
        """For a counted session that is about to return, if the lease that began with its gap is over."""
        if not session.has_lost_lease:
            return None
        session.has_lost_lease = False
        return self.try_keep(session, ttl_s)

    def try_let_go(self, session: SessionState, *, is_expected: bool) -> HintKv | None:
        """For a session that is not counted any more, whether or not anything was kept for it."""
        if not self._takes_hints(session):
            return None
        assert session.backend is not None
        session.has_lost_lease = True
        action = KvAction.RELEASE if is_expected else KvAction.DEMOTE
        return HintKv(session.id, session.backend, action)

    # -- what comes back --------------------------------------------------------------------------

    def resumed(self, session: SessionState, event: LeaseResumed) -> None:
        self._worth.resumed(session.id, session.family, event.leased_tokens, event.hit_tokens)

    def try_renew(
        self, session: SessionState, event: LeaseExpired, left_s: float, *, is_overdue: bool
    ) -> HintKv | None:
        """Its time was up. ``left_s`` is how much longer the session's gap may go on, 0 without one. A place
        that is overdue is not worth a lease any more, until its tools have ended."""
        if not session.is_counted or left_s <= 0 or session.backend != event.backend:
            self._worth.unused(session.id, session.family, event.tokens)
        elif not is_overdue:
            return self.try_keep(session, left_s)
        session.has_lost_lease = True
        return None

    def forget(self, session: SessionState) -> None:
        self._worth.forget(session.id)

    def _takes_hints(self, session: SessionState) -> bool:
        return self._is_on and session.backend is not None and self._backends[session.backend].takes_hints
