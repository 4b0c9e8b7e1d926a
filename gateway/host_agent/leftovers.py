"""Background processes that outlive their command, because its order said so, until their session ends.

Owns who is still there. They are not commands: nobody waits for them, and their output is dropped.
"""

from __future__ import annotations

from gateway.host_agent.containment import Containment
from gateway.host_agent.running import Left


class Leftovers:
    def __init__(self, containment: Containment) -> None:
        self._containment = containment
        self._of_session: dict[str, list[Left]] = {}

    def __len__(self) -> int:
        return sum(len(each) for each in self._of_session.values())

    def add(self, session: str, left: Left) -> None:
        self._of_session.setdefault(session, []).append(left)

    def release_dead(self) -> None:
        """Those that ended by themselves, where control groups can tell."""
        for session, lefts in list(self._of_session.items()):
            alive = [left for left in lefts if left.group is None or left.group.pids()]
            for left in lefts:
                if left not in alive:
                    self._release(left)
            self._of_session[session] = alive
            if not alive:
                del self._of_session[session]

    async def end_session(self, session: str) -> None:
        while lefts := self._of_session.pop(session, None):
            for left in lefts:
                try:
                    await self._containment.kill(left.exec_id, left.group)
                finally:
                    self._release(left)

    async def end_all(self) -> None:
        for session in list(self._of_session):
            await self.end_session(session)

    def abandon(self) -> None:
        for lefts in self._of_session.values():
            for left in lefts:
                _close(left)
        self._of_session.clear()

    def _release(self, left: Left) -> None:
        _close(left)
        self._containment.remove(left.exec_id, left.group)


def _close(left: Left) -> None:
    for channel in left.channels:
        channel.close()
