"""Hints that wait to be sent to one backend: at most one for each session, and a bound on all.

A hint is advice about the state that a session is in, so the latest stands for those before it; the end of
a session stands for all that might come after it, and a turn that goes on its way makes what was said before
it wrong. No clock and no socket.
"""

from collections import OrderedDict
from collections.abc import Callable

from backend_patch.protocol import KvOp, KvRequest
from marsproxy.patch_metrics import Dropped


class HintQueue:
    """
    Args:
        limit: sessions with a hint that waits. One more drops the oldest release, which costs the backend
            least not to hear (the lease runs out by itself), else the oldest of all.
        dropped: told of every hint that will not be sent.
    """

    def __init__(self, limit: int, dropped: Callable[[KvOp, Dropped], None]) -> None:
        self._limit = limit
        self._dropped = dropped
        self._waiting: OrderedDict[str, KvRequest] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, request: KvRequest) -> None:
        waiting = self._waiting.get(request.session)
        if waiting is not None and waiting.op is KvOp.END:
            self._dropped(request.op, Dropped.REPLACED)
            return
        if waiting is not None:
            self._dropped(waiting.op, Dropped.REPLACED)
        elif len(self._waiting) >= self._limit:
            self._make_room()
        self._waiting[request.session] = request

    def overtake(self, session: str) -> None:
        """A turn of the session is on its way."""
        if (waiting := self._waiting.pop(session, None)) is not None:
            self._dropped(waiting.op, Dropped.OVERTAKEN)

    def take(self, most: int) -> list[KvRequest]:
        """The oldest, for sending."""
        return [self._waiting.popitem(last=False)[1] for _ in range(min(most, len(self._waiting)))]

    def _make_room(self) -> None:
        releases = (session for session, waiting in self._waiting.items() if waiting.op is KvOp.RELEASE)
        session = next(releases, next(iter(self._waiting)))
        self._dropped(self._waiting.pop(session).op, Dropped.NO_ROOM)
