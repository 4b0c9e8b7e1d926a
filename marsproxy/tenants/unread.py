"""How many requests of each tenant are passed through unread (embeddings, lists of models).

The policy hears of turns only, so what is no turn is counted here, by each replica for itself: at most
``max_open_turns`` of a tenant at once, beside its turns. Owns those counts; it bounds connections and what a
backend is asked at once, and it must not know what any of it costs.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from marsproxy import errors
from marsproxy.core.commands import Reason
from marsproxy.core.tenant_limits import RETRY_AFTER_S
from marsproxy.tenants.door import Caller, NotAdmitted


class UnreadRequests:
    def __init__(self) -> None:
        self._open: Counter[str] = Counter()
        """By tenant, of those that have one; who has none has no entry."""

    @contextmanager
    def one(self, caller: Caller) -> Iterator[None]:
        """While a request of the caller's is under way.

        Raises:
            NotAdmitted: as many are as may be. The body is not waited for.
        """
        if caller.max_open_turns is not None and self._open[caller.tenant] >= caller.max_open_turns:
            refusal = errors.rejected(Reason.TENANT_TURNS, RETRY_AFTER_S)
            raise NotAdmitted(replace(refusal, closes_connection=True))
        self._open[caller.tenant] += 1
        try:
            yield
        finally:
            self._open[caller.tenant] -= 1
            if not self._open[caller.tenant]:
                del self._open[caller.tenant]

    def __len__(self) -> int:
        return self._open.total()
