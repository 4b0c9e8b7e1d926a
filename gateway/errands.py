"""What hosts are told about commands and nobody waits for: stop, forget, the rest of a long input.

Owns those calls until they are answered. A host that is lost is told nothing: its return is ``adoption``'s to
notice.
"""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from gateway.exec_record import Exec
from gateway.host import CommandHost, HostFault, HostLost, RunOrder
from gateway.host_agent.wire import MAX_PAYLOAD_BYTES
from gateway.hosts import Hosts
from gateway.tasks import Tasks

_TAKEN_S = 3600.0
"""For which an id without a key stays taken at its host: it is random, and nobody sends it again but by a
connection that was given up and still holds its start. Those last for minutes."""


class Errands:
    def __init__(self, hosts: Hosts, key_ttl_s: float) -> None:
        """``key_ttl_s``: of a key, under which a command may be sent again."""
        self._hosts = hosts
        self._key_ttl_s = key_ttl_s
        self._tasks = Tasks()

    def stop(self, record: Exec, grace_s: float) -> None:
        self._run(f"stop {record.id}", self._client(record).stop(record.id, grace_s))

    def forget(self, record: Exec) -> None:
        taken_s = _TAKEN_S if record.body_digest is None else max(_TAKEN_S, self._key_ttl_s)
        self._run(f"forget {record.id}", self._client(record).forget(record.id, taken_s))

    def feed(self, record: Exec, order: RunOrder) -> None:
        """What did not fit beside the start (``first_piece``)."""
        record.fed = asyncio.Event()
        self._run(f"feed {record.id}", _feed(self._client(record), order, record.fed))

    async def close(self, timeout_s: float) -> None:
        await self._tasks.join(timeout_s)
        await self._tasks.close()

    def _client(self, record: Exec) -> CommandHost:
        return self._hosts.get(record.host).client

    def _run(self, name: str, call: Coroutine[Any, Any, None]) -> None:
        self._tasks.spawn(name, _unless_lost(call))


def first_piece(order: RunOrder) -> bytes:
    """As much of its input as may come with a start."""
    return order.stdin[:MAX_PAYLOAD_BYTES]


def long_input_bytes(order: RunOrder) -> int | None:
    """None: it is no longer than that."""
    return len(order.stdin) if len(order.stdin) > MAX_PAYLOAD_BYTES else None


async def _feed(client: CommandHost, order: RunOrder, fed: asyncio.Event) -> None:
    """Pieces wait for the command to read, so a slow one costs one piece on the way."""
    offset = MAX_PAYLOAD_BYTES
    try:
        while offset < len(order.stdin):
            piece = order.stdin[offset : offset + MAX_PAYLOAD_BYTES]
            is_eof = offset + len(piece) == len(order.stdin) and not order.keeps_stdin
            offset = await client.write_stdin(order.exec_id, piece, offset, is_eof=is_eof)
    finally:
        fed.set()


async def _unless_lost(call: Coroutine[Any, Any, None]) -> None:
    with contextlib.suppress(HostLost, HostFault):
        await call
