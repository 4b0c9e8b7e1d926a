"""A Kubernetes API server for one test, of EndpointSlices alone: real list-and-watch over HTTP.

Lists carry the version of the last change; a watch from a version tells what came after it, a line each, and
goes on until it is ended; one from a version that was compacted away is answered 410, as the real one does.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

PATH = "/apis/discovery.k8s.io/v1/namespaces/prod/endpointslices"


def pod(address: str, *, uid: str | None = None, **conditions: bool) -> dict[str, Any]:
    made: dict[str, Any] = {"addresses": [address], "conditions": {"ready": True} | conditions}
    if uid is not None:
        made["targetRef"] = {"kind": "Pod", "name": uid, "uid": uid}
    return made


def slice_of(name: str, *pods: dict[str, Any], family: str = "IPv4", port: int = 8000) -> dict[str, Any]:
    return {
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "vllm"}},
        "addressType": family,
        "endpoints": list(pods),
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
    }


@dataclass
class KubernetesApi:
    token: str = "first"
    slices: dict[str, dict[str, Any]] = field(default_factory=dict)
    version: int = 100
    history: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    oldest: int = 0
    """Versions before this are gone."""
    lists: int = 0
    watches: list[str] = field(default_factory=list)
    """The versions from which each began."""
    told: int = 0
    """The latest version that a watch has told."""
    refused: int = 0
    fails_with: int | None = None
    url: str = ""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _ends: asyncio.Event = field(default_factory=asyncio.Event)
    _open: set[asyncio.Task[Any]] = field(default_factory=set)

    def apply(self, made: dict[str, Any]) -> None:
        name = made["metadata"]["name"]
        kind = "MODIFIED" if name in self.slices else "ADDED"
        self.slices[name] = made
        self._record(kind, made)

    def delete(self, name: str) -> None:
        self._record("DELETED", self.slices.pop(name))

    def bookmark(self) -> None:
        self._record("BOOKMARK", {"kind": "EndpointSlice", "metadata": {}})

    def compact(self) -> None:
        """Whatever came before now is forgotten."""
        self.oldest = self.version + 1

    def end_watches(self) -> None:
        self._ends.set()
        self._ends = asyncio.Event()

    def _record(self, kind: str, made: dict[str, Any]) -> None:
        self.version += 1
        made = made | {"metadata": made["metadata"] | {"resourceVersion": str(self.version)}}
        self.history.append((self.version, {"type": kind, "object": made}))
        self._changed.set()
        self._changed = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            await self._answer(head, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(task)
            writer.close()

    async def _answer(self, head: str, writer: asyncio.StreamWriter) -> None:
        target = head.split(" ")[1]
        path, _, query = target.partition("?")
        asked = dict(part.partition("=")[::2] for part in query.split("&"))
        if f"bearer {self.token}" not in head.lower():
            self.refused += 1
            await self._whole(writer, 401, {"kind": "Status", "code": 401})
        elif self.fails_with is not None:
            await self._whole(writer, self.fails_with, {"kind": "Status"})
        elif path != PATH or asked.get("labelSelector") != "kubernetes.io%2Fservice-name%3Dvllm":
            await self._whole(writer, 404, {"kind": "Status", "code": 404})
        elif "watch" in asked:
            await self._watch(writer, asked["resourceVersion"])
        else:
            self.lists += 1
            items = list(self.slices.values())
            await self._whole(
                writer, 200, {"metadata": {"resourceVersion": str(self.version)}, "items": items}
            )

    async def _whole(self, writer: asyncio.StreamWriter, status: int, body: dict[str, Any]) -> None:
        raw = json.dumps(body).encode()
        writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % (status, len(raw)))
        writer.write(raw)
        await writer.drain()

    async def _watch(self, writer: asyncio.StreamWriter, version: str) -> None:
        self.watches.append(version)
        seen, ends = int(version), self._ends
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n")
        while not ends.is_set():
            changed = self._changed
            if seen < self.oldest - 1:
                self._line(writer, {"type": "ERROR", "object": {"kind": "Status", "code": 410}})
                break
            for number, change in self.history:
                if number > seen:
                    self._line(writer, change)
                    seen = number
            await writer.drain()
            self.told = seen
            waits = [asyncio.get_running_loop().create_task(each.wait()) for each in (changed, ends)]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    @staticmethod
    def _line(writer: asyncio.StreamWriter, change: dict[str, Any]) -> None:
        raw = json.dumps(change).encode() + b"\n"
        writer.write(b"%x\r\n%b\r\n" % (len(raw), raw))


@asynccontextmanager
async def kubernetes_api() -> AsyncIterator[KubernetesApi]:
    api = KubernetesApi()
    server = await asyncio.start_server(api.serve, "127.0.0.1", 0)
    async with server:
        api.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield api
        finally:
            for task in list(api._open):
                task.cancel()
            await asyncio.sleep(0)
