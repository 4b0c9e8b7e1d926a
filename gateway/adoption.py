"""What hosts still have from before: commands and sessions of an earlier gateway, or from before a host was
gone.

Owns the comparison of what a host says with what is on record here. It runs when a host is reached for the
first time, and each time that it comes back.

- A command that we do not know and that carries our note: it is ours now, running or over, and its key is
  claimed.
- One whose gateway died before it had all of its input: it is cancelled. It would wait for the rest until its
  time is up, and to end its input there would make it work on half of it.
- One that runs there but is over here, since the host was lost meanwhile: it is stopped; the answer that was
  given stays.
- A session that we do not know: it is ours now, unless only its workspace was kept.
"""

import logging
from collections.abc import Callable

from gateway.exec_record import Exec
from gateway.execs import Execs
from gateway.host import HostExec, HostFault, HostLost
from gateway.host_agent.wire import Fault
from gateway.hosts import Host
from gateway.notes import ExecNote, SessionNote, adopted, read_record
from gateway.sessions import Sessions
from gateway.store import Claim, Store, StoreFull, StoreUnavailable

log = logging.getLogger(__name__)


class Adoption:
    def __init__(self, *, execs: Execs, sessions: Sessions, store: Store, clock: Callable[[], float]) -> None:
        self._execs = execs
        self._sessions = sessions
        self._store = store
        self._clock = clock

    async def of(self, host: Host) -> None:
        """Raises HostLost, HostFault; then it is to be tried again."""
        sessions = await host.client.list_sessions()
        for session in sessions:
            note = read_record(session.record, SessionNote)
            if note is not None and not note.is_ended:
                self._sessions.adopt(host, session.name, session.workspace, note)
        await self._sessions.deny(host, {session.name for session in sessions})
        seen = await host.client.list_execs()
        for each in seen:
            await self._take(host, each)
        host.asked.set()
        if seen:
            log.info("host %s: asked for what it runs; %d commands on record there", host.name, len(seen))

    async def _take(self, host: Host, seen: HostExec) -> None:
        note = read_record(seen.record, ExecNote)
        if note is None:
            return
        if (known := self._execs.find(seen.exec_id)) is not None:
            await self._compare(host, seen, note, known)
            return
        if note.body_digest is not None and not self._store.is_durable:
            await self._claim(seen.exec_id, Claim(note.body_digest, host.name, ""))
        lacks_input = await self._lacks_input(host, seen, note)
        if self._execs.find(seen.exec_id) is None:  # Nobody else may have taken it while others were asked.
            record = adopted(seen, host.name, note, self._clock())
            self._execs.adopt(record, seen)
            if lacks_input:
                self._execs.cancel(record, "its gateway died before all of its input had come")

    async def _lacks_input(self, host: Host, seen: HostExec, note: ExecNote) -> bool:
        """Nothing, written where the input ends, is a gap before that."""
        if seen.ended_by is not None or note.long_input_bytes is None:
            return False
        try:
            await host.client.write_stdin(seen.exec_id, b"", note.long_input_bytes, is_eof=False)
        except HostFault as fault:
            return fault.code == Fault.BAD_REQUEST
        return False

    async def _compare(self, host: Host, seen: HostExec, note: ExecNote, known: Exec) -> None:
        if known.state.is_final:
            if seen.ended_by is None:
                await self._stop(host, seen.exec_id)
        elif known.body_digest != note.body_digest:
            # A claim was lost, and its key is in use again for another request, which waits for this host.
            self._execs.cancel(known, "its Idempotency-Key was used before with another body")

    async def _claim(self, exec_id: str, claim: Claim) -> None:
        try:
            await self._store.claim(exec_id, claim)
        except (StoreFull, StoreUnavailable):
            log.warning("exec %s: its key is not on record; its host keeps it from running twice", exec_id)

    async def _stop(self, host: Host, exec_id: str) -> None:
        try:
            await host.client.stop(exec_id, 0.0)
        except (HostLost, HostFault) as error:
            log.warning("exec %s runs on although it was lost: %s", exec_id, error)
