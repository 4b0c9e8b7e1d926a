"""The server's side of one ASGI request, played by hand: what it receives, and what becomes of the answer."""

import asyncio
from typing import Any

from marsproxy.http_limits import CUT


class FakeConnection:
    """One request. ``blocks`` names the kind of message whose sending never returns."""

    def __init__(self, method: str = "POST", path: str = "/v1/chat/completions", **headers: str) -> None:
        self.inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[dict[str, Any]] = []
        self.blocks: str | None = None
        self.is_cut = False
        self.scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
            "extensions": {CUT: self._cut},
        }

    def sends(self, *parts: bytes, is_whole: bool = True) -> "FakeConnection":
        """The client sends these pieces of its body, the last of them unless told otherwise."""
        for number, part in enumerate(parts, start=1):
            more = number < len(parts) or not is_whole
            self.inbox.put_nowait({"type": "http.request", "body": part, "more_body": more})
        return self

    def disconnects(self) -> None:
        self.inbox.put_nowait({"type": "http.disconnect"})

    async def receive(self) -> dict[str, Any]:
        return await self.inbox.get()

    async def send(self, message: Any) -> None:
        self.sent.append(dict(message))
        if self.blocks == self._kind(message):
            await asyncio.Event().wait()

    def _cut(self) -> None:
        self.is_cut = True

    @staticmethod
    def _kind(message: Any) -> str:
        if message["type"] == "http.response.start":
            return "start"
        return "write" if message.get("more_body") else "finish"

    @property
    def status(self) -> int:
        status = self.sent[0]["status"]
        assert isinstance(status, int)
        return status

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def is_finished(self) -> bool:
        return bool(self.sent) and self._kind(self.sent[-1]) == "finish"
