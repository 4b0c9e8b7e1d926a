"""Looks after one host: asks what it has left, notices that it is gone, and that it is back.

Owns the beat. What a return means is ``adoption``'s, what a reading means the queue's.
"""

import asyncio
import logging

from gateway.adoption import Adoption
from gateway.host import HostFault, HostLost, Reading
from gateway.hosts import Host

log = logging.getLogger(__name__)

_BUSY_S = 0.5
"""Between readings while something runs or waits: memory can go in a second."""
_IDLE_S = 5.0
_ANSWER_S = 3.0
"""A host whose connection is up and that does not say how it is for so long is busy, or the connection is
dead and will soon be found so: that is the link's to notice."""
_STEP_S = 0.25
"""How late a connection that is down is noticed, and how soon a host that is gone is asked again."""


class HostWatch:
    def __init__(self, host: Host, adoption: Adoption) -> None:
        self._host = host
        self._adoption = adoption

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                reading = await self._reading()
            except HostLost:
                self._gone()
                await asyncio.sleep(_STEP_S)
                continue
            if self._host.is_gone or not self._host.asked.is_set():
                await self._came_back()
            self._host.saw(reading)
            await self._pause()

    async def _pause(self) -> None:
        """Shorter while something runs or waits, and over at once when the connection is."""
        loop = asyncio.get_running_loop()
        since_s = loop.time()
        while self._host.client.state == "up":
            left_s = (_BUSY_S if self._host.is_busy else _IDLE_S) - (loop.time() - since_s)
            if left_s <= 0:
                return
            await asyncio.sleep(min(left_s, _STEP_S))
        await asyncio.sleep(0)

    async def _reading(self) -> Reading | None:
        """None where it does not say, or answers no: it is there, and how it is is not known. Raises
        HostLost when there is no connection: its commands are not lost yet, that takes its ``lost_after_s``,
        but nothing is started there."""
        try:
            async with asyncio.timeout(_ANSWER_S):
                return await self._host.client.observe()
        except HostFault as fault:
            log.debug("host %s has no reading: %s", self._host.name, fault)
        except TimeoutError as error:
            if self._host.client.state != "up":
                raise HostLost(f"{self._host.name} is not connected") from error
        return None

    def _gone(self) -> None:
        if not self._host.is_gone:
            log.warning("host %s does not answer; nothing is started there", self._host.name)
        self._host.lost()

    async def _came_back(self) -> None:
        try:
            await self._adoption.of(self._host)
        except (HostLost, HostFault) as error:
            log.warning("host %s does not say what it runs: %s", self._host.name, error)
            return
        if self._host.is_gone:
            log.info("host %s is back", self._host.name)
        self._host.came_back()
