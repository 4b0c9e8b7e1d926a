"""From an exec request to a command on its way, at most once per Idempotency-Key.

Owns the meaning of a key. It must not know HTTP.

Theory of operation. A key stands for one exec id, the same in every gateway. It is *claimed* in the store,
with the digest of the request, before anything is sent to a host; only who made the claim sends. A request
whose key was claimed before with the same digest *joins* what that became:

1. it is on its way in this very moment: both wait for the same;
2. it is on record here or in the store: that is the answer;
3. hosts are still asked what they have from before: 503, and the same request may be sent again;
4. we made that claim: it was run, and is forgotten: 410. An attempt of ours whose claim the store did not
   answer is the exception; it was refused and not sent;
5. else an earlier gateway made it and no host knows of it: the command waited in that gateway's queue. It is
   sent now under the same id, to the same host, where the directory of the id keeps it from running twice
   whatever we think here. A host that was started again since the claim may have lost that directory with the
   power: then, and where the life of the host was not known, nobody can say whether it ran: 410 too.
"""

import asyncio
import hashlib
import secrets
from collections import OrderedDict
from dataclasses import replace

import msgspec

from gateway.command import Command
from gateway.command_maker import CommandMaker
from gateway.errors import Refusal, adopting
from gateway.exec_record import Exec
from gateway.execs import Execs
from gateway.hosts import Hosts
from gateway.protocol import ExecRequest
from gateway.session_record import Session
from gateway.store import Claim, Store, StoreFull, StoreUnavailable
from gateway.tasks import Tasks

_MAX_UNCERTAIN = 10_000
"""Claims that the store did not answer. One that is pushed out is taken for one that ran: 410, not run."""


class Submission:
    def __init__(self, *, maker: CommandMaker, execs: Execs, hosts: Hosts, store: Store) -> None:
        self._maker = maker
        self._execs = execs
        self._hosts = hosts
        self._store = store
        self._owner = secrets.token_hex(8)
        self._under_way: dict[str, tuple[str, asyncio.Task[Exec]]] = {}
        """By exec id, with the digest of the request."""
        self._uncertain: OrderedDict[str, None] = OrderedDict()
        self._tasks = Tasks(Refusal)

    async def submit(self, session: Session, request: ExecRequest, idempotency_key: str | None) -> Exec:
        """Raises Refusal. Cancelling it has no effect: the command is on its way, or its key free."""
        if idempotency_key is None:
            return self._execs.submit(self._maker.make(session, request, f"ex-{secrets.token_hex(12)}"))
        exec_id = keyed_exec_id(session.tenant, idempotency_key)
        digest = request_digest(session.id, request)
        under_way = self._under_way.get(exec_id)
        if under_way is None:
            task = self._tasks.spawn(f"submit {exec_id}", self._submit(session, request, exec_id, digest))
            under_way = self._under_way[exec_id] = (digest, task)
            task.add_done_callback(lambda _: self._under_way.pop(exec_id, None))
        if under_way[0] != digest:
            raise _other_body()
        return await asyncio.shield(under_way[1])

    async def close(self) -> None:
        await self._tasks.close()

    async def _submit(self, session: Session, request: ExecRequest, exec_id: str, digest: str) -> Exec:
        if not self._hosts.are_asked and not self._store.is_durable:
            raise adopting()
        command = self._maker.make(session, request, exec_id, body_digest=digest)
        boot_id = self._hosts.get(session.host).client.boot_id
        found = await self._claim(exec_id, Claim(digest, session.host, self._owner, boot_id))
        if found is None:
            return await self._send(command)
        if found.body_digest != digest:
            raise _other_body()
        return await self._join(command, found)

    async def _join(self, command: Command, found: Claim) -> Exec:
        exec_id = command.order.exec_id
        record = await self._execs.recall(exec_id)
        if record is not None:
            return record
        if not self._hosts.are_asked:
            raise adopting()
        is_ours = found.owner in (self._owner, "") and exec_id not in self._uncertain
        if is_ours or found.host != command.host:
            raise _forgotten()
        if exec_id in self._uncertain:  # It was refused here, and never sent.
            return await self._send(command)
        if found.boot_id is None or found.boot_id != self._hosts.get(found.host).client.boot_id:
            raise _unknown()
        return await self._send(replace(command, order=replace(command.order, boot_id=found.boot_id)))

    async def _send(self, command: Command) -> Exec:
        try:
            record = self._execs.submit(command)
        except Refusal:
            await self._release(command.order.exec_id)
            raise
        self._uncertain.pop(record.id, None)
        return record

    async def _claim(self, exec_id: str, claim: Claim) -> Claim | None:
        try:
            return await self._store.claim(exec_id, claim)
        except StoreFull as error:
            message = "too many Idempotency-Keys are on record; this command was not run"
            raise Refusal(
                429, "too_many_idempotency_keys", message, param="Idempotency-Key", retry_after_s=60
            ) from error
        except StoreUnavailable as error:
            self._doubt(exec_id)
            message = (
                "keys cannot be put on record now; this command was not run (one without a key would be)"
            )
            raise Refusal(
                503, "store_unavailable", message, param="Idempotency-Key", retry_after_s=2
            ) from error

    async def _release(self, exec_id: str) -> None:
        try:
            await self._store.release(exec_id)
        except StoreUnavailable:
            self._doubt(exec_id)

    def _doubt(self, exec_id: str) -> None:
        self._uncertain[exec_id] = None
        if len(self._uncertain) > _MAX_UNCERTAIN:
            self._uncertain.popitem(last=False)


def keyed_exec_id(tenant: str, key: str) -> str:
    """The same in every gateway, so that a host knows a command that it was sent before. Keys themselves,
    which are a caller's, are written down nowhere."""
    text = f"{len(tenant)}:{tenant}{key}".encode("utf-8", "surrogatepass")
    return f"ex-{hashlib.sha256(text).hexdigest()[:32]}"


def request_digest(session_id: str, request: ExecRequest) -> str:
    """Of the meaning, not the bytes: field order and spaces may differ between attempts."""
    return hashlib.sha256(msgspec.json.encode((session_id, request), order="sorted")).hexdigest()


def _other_body() -> Refusal:
    message = "Idempotency-Key: used before with another body or session; this command was not run"
    return Refusal(409, "idempotency_key_reused", message, param="Idempotency-Key")


def _unknown() -> Refusal:
    message = (
        "its host was started again since this Idempotency-Key was first used, and whether it was run is lost"
    )
    return Refusal(410, "exec_forgotten", message, param="Idempotency-Key")


def _forgotten() -> Refusal:
    message = "this command was run under its Idempotency-Key, and its result is no longer on record"
    return Refusal(410, "exec_forgotten", message, param="Idempotency-Key")
