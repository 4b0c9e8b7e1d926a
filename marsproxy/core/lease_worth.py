"""Whether leases on a session's blocks are of use: do its next turns find in them what they need?

A lease keeps the blocks of what was sent. Where a client rewrites its history, or the chat template writes
an answer otherwise than the model did, the next turn begins with another text and finds next to nothing;
then the lease is memory taken from others for nothing. The share of leased tokens that were hit is
learned for each session, and for each family for those that have not shown their own. Whose share is too
small is not leased any more, but for a probe now and then: clients are mended, and templates.

What counts as leased is what a session's return ended, and what nobody came back for. Blocks that were
reclaimed are not counted: somebody needed them and got them, so they cost nothing, and whether a prompt
begins as the last one ended is not in it. Knows no backends and no budgets.
"""

from collections import OrderedDict
from dataclasses import dataclass

MAX_FAMILIES = 1_000
"""Families whose share is remembered; the one that was quiet for longest goes first."""
SESSION_DECAY, FAMILY_DECAY = 0.7, 0.95
"""What a lease still weighs when the next one has ended, chosen: a session's last three, and a family's last
twenty."""
LEAST_ENDS = 2
"""Leases of its own that a session is judged by; before that by its family. One may be an accident, such as
a history that was condensed."""
WORTH = 0.1
"""Share from which leasing is worth it. Chosen: where half of the sessions found nothing or a tenth of what
was kept, leasing them or not differed by less than 2 % in mean JCT (simulated, three workloads): what they
have taken is theirs by admission anyway. So it has to be a small share, one that a single hit lease lifts a
session above, and no fine one."""
PROBE_EVERY = 16
"""One lease in so many is tried all the same (chosen): what it costs is a sixteenth of what was saved."""


@dataclass(slots=True)
class _Share:
    leased: float = 0.0
    hit: float = 0.0
    ends: int = 0
    passed_over: int = 0
    """Leases that were not asked for since the last one."""

    def learn(self, leased: int, hit: int, decay: float) -> None:
        self.leased = self.leased * decay + leased
        self.hit = self.hit * decay + hit
        self.ends += 1

    @property
    def is_worth_it(self) -> bool:
        return self.ends < LEAST_ENDS or self.hit >= WORTH * self.leased

    def try_probe(self) -> bool:
        self.passed_over = (self.passed_over + 1) % PROBE_EVERY
        return not self.passed_over


class LeaseWorth:
    """Rows of sessions are dropped with ``forget``; no other sessions than those of the table get one."""

    def __init__(self) -> None:
        self._sessions: dict[str, _Share] = {}
        self._families: OrderedDict[str, _Share] = OrderedDict()

    def resumed(self, session_id: str, family: str, leased_tokens: int, hit_tokens: int) -> None:
        """The session's next turn was scheduled, and found so much of what was kept."""
        if leased_tokens > 0:
            self._learn(session_id, family, leased_tokens, min(hit_tokens, leased_tokens))

    def unused(self, session_id: str, family: str, leased_tokens: int) -> None:
        """It ended, and nobody had come back for it."""
        if leased_tokens > 0:
            self._learn(session_id, family, leased_tokens, 0)

    def try_lease(self, session_id: str, family: str) -> bool:
        """Whether to lease what the session leaves this time. Asked once for each turn: it counts probes."""
        share = self._sessions.get(session_id)
        if share is None or share.ends < LEAST_ENDS:
            share = self._families.get(family)
        return share is None or share.is_worth_it or share.try_probe()

    def share_of(self, session_id: str) -> float | None:
        """Of the session's leased tokens, those that were hit; None before any lease of it ended."""
        share = self._sessions.get(session_id)
        return share.hit / share.leased if share is not None else None

    def forget(self, session_id: str) -> None:
        self._sessions.pop(session_id, None)

    def _learn(self, session_id: str, family: str, leased: int, hit: int) -> None:
        self._sessions.setdefault(session_id, _Share()).learn(leased, hit, SESSION_DECAY)
        self._families.setdefault(family, _Share()).learn(leased, hit, FAMILY_DECAY)
        self._families.move_to_end(family)
        if len(self._families) > MAX_FAMILIES:
            self._families.popitem(last=False)
