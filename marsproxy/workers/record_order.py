"""The one order of the workers' records, kept by the parent.

Theory of operation. Whatever a member sends gets its place and time when it is read, and goes to every
member, its sender included. The order is that of the reads; since each member's socket carries frames in
order, all apply the same records in the same order. A worker that joins needs a state and everything behind
it: the oldest member is asked (``ASK_STATE`` has its own place in its stream, so the answer is the state as
of that place), and from then on records are kept for the joiner until the answer is here. If the one asked
dies, another is. Membership is the connection: whoever's ends has left, and is told so to all.

Owns members, order and times. It must not know what records say: it only makes those about members itself.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from marsproxy import state_pickle
from marsproxy.core.shared_state import Happening, MemberJoined, MemberLeft
from marsproxy.workers.frames import Frame, FrameSocket, Kind, encode

log = logging.getLogger(__name__)

MAX_WAITING_BYTES = 64 << 20
"""That a member has not read: about 200,000 records, minutes at the highest rate: it hangs."""
PARENT = 0
"""Number of whoever tells that a member has joined; theirs begin at 1."""


def member_name(number: int) -> str:
    return f"w{number}"


@dataclass(slots=True, eq=False)
class Member:
    """One worker's connection, from its start to its end."""

    number: int
    socket: FrameSocket
    has_joined: bool = False
    behind: list[bytes] | None = None
    """Records since it asked for a state, while it waits for one."""
    behind_bytes: int = 0
    asked: int | None = None
    """The member whose state it waits for."""


class RecordOrder:
    """
    Args:
        clock: seconds; of the host, so that it is that of the workers as well.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last_s = 0.0
        self._members: dict[int, Member] = {}
        """Connected ones, oldest first."""
        self.records = 0

    @property
    def joined(self) -> int:
        return sum(member.has_joined for member in self._members.values())

    def connected(self, number: int, socket: FrameSocket) -> Member:
        member = self._members[number] = Member(number, socket)
        return member

    def take(self, member: Member, frames: list[Frame]) -> None:
        """What a member said; ignored when it has been given up."""
        if self._members.get(member.number) is not member:
            return
        placed = []
        for frame in frames:
            match frame.kind:
                case Kind.APPEND:
                    placed.append(self._placed(member.number, frame.payload))
                case Kind.JOIN:
                    self._publish(placed)
                    placed = []
                    self._admit(member)
                case Kind.STATE:
                    self._publish(placed)
                    placed = []
                    self._hand_over(frame)
                case _:
                    raise AssertionError(f"no frame for the order: {frame.kind.name}")
        self._publish(placed)

    def gone(self, member: Member) -> None:
        """Its connection ended."""
        if self._members.get(member.number) is not member:
            return
        del self._members[member.number]
        if member.has_joined:
            # As its last word: what is told by no member is not applied.
            self._tell(MemberLeft(member_name(member.number)), member.number)
        for other in list(self._members.values()):
            if other.asked == member.number:
                self._admit(other)

    def give_up(self, member: Member) -> None:
        """It does not read: no more of its records count, and its connection's end tells it so."""
        member.socket.abort()
        self.gone(member)

    def _admit(self, joiner: Member) -> None:
        donor = next((m for m in self._members.values() if m.has_joined), None)
        if donor is None:
            joiner.behind, joiner.asked = None, None
            joiner.socket.send(Frame(Kind.FOUND, joiner.number, self._now()))
            self._joined(joiner)
            return
        joiner.behind, joiner.behind_bytes, joiner.asked = [], 0, donor.number
        donor.socket.send(Frame(Kind.ASK_STATE, joiner.number, self._now()))

    def _hand_over(self, state: Frame) -> None:
        joiner = self._members.get(state.number)
        if joiner is None or joiner.behind is None:
            return
        joiner.socket.send(Frame(Kind.ADOPT, joiner.number, state.at_s, state.payload))
        joiner.socket.send_encoded(b"".join(joiner.behind))
        self._joined(joiner)

    def _joined(self, member: Member) -> None:
        member.behind, member.asked, member.has_joined = None, None, True
        self._tell(MemberJoined(member_name(member.number)))

    def _tell(self, happening: Happening, number: int = PARENT) -> None:
        self._publish([self._placed(number, state_pickle.write(happening))])

    def _now(self) -> float:
        self._last_s = max(self._last_s, self._clock())
        return self._last_s

    def _placed(self, number: int, payload: bytes) -> bytes:
        self.records += 1
        return encode(Frame(Kind.RECORD, number, self._now(), payload))

    def _publish(self, placed: list[bytes]) -> None:
        if not placed:
            return
        data = b"".join(placed)
        for member in list(self._members.values()):
            if member.behind is not None:
                member.behind.append(data)
                member.behind_bytes += len(data)
            elif member.has_joined:
                member.socket.send_encoded(data)
            if member.socket.waiting_bytes + member.behind_bytes > MAX_WAITING_BYTES:
                log.error("worker %d does not take its records; it is given up", member.number)
                self.give_up(member)
