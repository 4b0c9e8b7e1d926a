"""When the policy hears of the machines, and how far the answers are.

Theory of operation. While an engine works or a turn is open, everything is read once an interval, as a
live proxy does. In a quiet time, when nothing but tools and users' pauses go on, no reading is due by
itself; one is taken right before the policy is next told anything. So whatever the policy decides, it
decides on a reading no older than an interval, and hours of tools cost nothing. With a delay a reading
has to be taken before it is known to be wanted, so then only a time without tools is quiet, in which
nothing changes: what was read then is what is there now.

A policy that holds turns for ever while nothing is going on is not kept company for ever.
"""

from collections.abc import Callable, Collection
from math import inf

from loadgen.sim.agenda import Agenda
from loadgen.sim.backend import Backend
from loadgen.sim.tool_hosts import ToolHosts
from marsproxy.core.events import Event

LONELY_READINGS = 3_600
"""After so many in a row with nothing else due, no policy is going to change its mind: an hour at the
default interval, where a window that grows by one with each reading would have long let everybody in."""


class Telemetry:
    """Call ``refresh`` before the policy is told anything, and ``turn_arrived`` when one did.

    Args:
        open_turns: ids of the turns between their arrival and their end.
        tell: gives the policy an event.
    """

    def __init__(
        self,
        servers: Collection[Backend],
        hosts: ToolHosts,
        agenda: Agenda,
        open_turns: Collection[str],
        tell: Callable[[Event, float], None],
        *,
        interval_s: float,
        delay_s: float = 0.0,
    ) -> None:
        self._servers = servers
        self._hosts = hosts
        self._agenda = agenda
        self._open_turns = open_turns
        self._tell = tell
        self._interval_s = interval_s
        self._delay_s = delay_s
        self._read_s = -inf
        self._is_ticking = False
        self._on_the_way = 0
        """Readings on the agenda that were taken and not told yet."""
        self._lonely = 0

    def refresh(self, now: float) -> None:
        """In a quiet time, take a reading if the last one is old."""
        if not self._is_ticking and now - self._read_s >= max(self._interval_s, self._delay_s):
            self._tell_all(self._take(now), now)

    def turn_arrived(self, now: float) -> None:
        """A quiet time, if it was one, is over."""
        if not self._is_ticking:
            self.refresh(now)
            self._is_ticking = True
            self._agenda.add(max(now, self._read_s + self._interval_s), self._tick)

    def _tick(self, now: float) -> None:
        for server in self._servers:
            for progress in server.progress(now):
                self._tell(progress, now)
            for event in server.take_events():
                self._tell(event, now)
        self._read(now)
        self._lonely = self._lonely + 1 if self._is_lonely else 0
        self._is_ticking = not self._is_quiet and self._lonely < LONELY_READINGS
        if self._is_ticking:
            self._agenda.add(now + self._interval_s, self._tick)

    def _read(self, now: float) -> None:
        readings = self._take(now)
        if not self._delay_s:
            self._tell_all(readings, now)
            return

        def arrive(at_s: float) -> None:
            self._on_the_way -= 1
            self._tell_all(readings, at_s)

        self._on_the_way += 1
        self._agenda.add(now + self._delay_s, arrive)

    def _take(self, now: float) -> list[Event]:
        self._read_s = now
        readings: list[Event] = [server.reading(now) for server in self._servers]
        if self._hosts.shape is not None:
            readings.append(self._hosts.observed(now))
        return readings

    def _tell_all(self, readings: list[Event], now: float) -> None:
        for reading in readings:
            self._tell(reading, now)

    @property
    def _is_quiet(self) -> bool:
        if self._open_turns:
            return False
        return not self._delay_s or not (self._hosts.running or self._hosts.queued)

    @property
    def _is_lonely(self) -> bool:
        """Nothing will ever happen unless a reading makes the policy do something."""
        is_at_work = any(server.has_work for server in self._servers) or self._hosts.next_change_s is not None
        return not is_at_work and len(self._agenda) == self._on_the_way
