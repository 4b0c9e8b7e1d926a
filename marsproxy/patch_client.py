"""The patch's routes of one backend, spoken over HTTP: ask, decode, or say that it did not work.

Owns paths, timeouts and the key; what answers mean is the business of who asks. Nothing is asked twice.
"""

from typing import TypeVar

import httpx
import msgspec

from backend_patch.protocol import (
    BATCH_PATH,
    CAPABILITIES_PATH,
    HEADROOM_PATH,
    Headroom,
    KvAnswer,
    KvRequest,
)
from marsproxy.backend_address import BackendAddress
from marsproxy.patch import Finding, PatchState, judge

HEADROOM_TIMEOUT_S = 1.0
"""The patch answers from shared memory: in milliseconds while the engine is busiest. What takes a second is
stuck, and ``/metrics`` should be tried while the last reading is fresh."""
ASK_TIMEOUT_S = 2.0
"""For capabilities, which the engine itself may have to be asked for: it answers between two steps, after
0.4 s at worst under the largest prefills (measured on vLLM 0.32, modelled H100, steps of 8,192 tokens)."""
JSON = {"content-type": "application/json"}

T = TypeVar("T")


class PatchFailed(Exception):
    """No answer, or none that can be read."""


class PatchClient:
    def __init__(self, client: httpx.AsyncClient, address: BackendAddress) -> None:
        self._client = client
        self._base = address.base
        self._headers = dict(address.headers)

    async def ask(self) -> Finding:
        """What its capabilities say; it never raises."""
        try:
            answer = await self._client.get(
                self._base + CAPABILITIES_PATH, headers=self._headers, timeout=ASK_TIMEOUT_S
            )
        except httpx.HTTPError as exc:
            return Finding(PatchState.UNKNOWN, type(exc).__name__)
        return judge(answer.status_code, answer.content)

    async def headroom(self, after: str) -> Headroom:
        """
        Raises:
            PatchFailed: it did not answer as it should.
        """
        query = f"?after={after}" if after else ""
        return await self._read(
            Headroom,
            self._client.build_request(
                "GET", self._base + HEADROOM_PATH + query, headers=self._headers, timeout=HEADROOM_TIMEOUT_S
            ),
        )

    async def send(self, batch: list[KvRequest]) -> list[KvAnswer]:
        """One answer for each, in their order.

        Raises:
            PatchFailed: it did not answer as it should. What was asked may have been done all the same.
        """
        request = self._client.build_request(
            "POST",
            self._base + BATCH_PATH,
            headers=self._headers | JSON,
            content=msgspec.json.encode(batch),
        )
        answers = await self._read(list[KvAnswer], request)
        if len(answers) != len(batch):
            raise PatchFailed("not one answer for each")
        return answers

    async def _read(self, kind: type[T], request: httpx.Request) -> T:
        try:
            answer = await self._client.send(request)
            answer.raise_for_status()
            return msgspec.json.decode(answer.content, type=kind)
        except (httpx.HTTPError, msgspec.MsgspecError, UnicodeDecodeError) as exc:
            raise PatchFailed(type(exc).__name__) from exc
