"""An agent framework as the gateway sees it: plain requests to the REST API.

Owns paths and waiting. It takes nothing from the server's code, so that a mistake there is not made twice.
"""

import itertools
import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx

from tests.gateway_live.processes import HANG_S

ACTIVE = ("queued", "starting", "running")

Answer = dict[str, Any]


class Caller:
    def __init__(self, url: str, token: str | None = None) -> None:
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self.http = self._client(url)

    def close(self) -> None:
        self.http.close()

    def hang_up(self) -> None:
        """Close idle connections, too."""
        self.http.close()
        self.http = self._client(str(self.http.base_url))

    def _client(self, url: str) -> httpx.Client:
        return httpx.Client(base_url=url, headers=self._headers, timeout=2 * HANG_S, trust_env=False)

    def move_to(self, url: str) -> None:
        """The gateway was restarted elsewhere; sessions go on by their names."""
        self.http.base_url = httpx.URL(url)

    def session(self, name: str | None = None, **settings: Any) -> "Session":
        """Made, or its settings replaced."""
        name = name or f"s-{uuid.uuid4().hex[:8]}"
        response = self.http.put(f"/v1/sessions/{name}", json=settings)
        assert response.status_code in (200, 201), response.text
        return Session(self, name, response.json())

    def look(self, exec_id: str, wait_s: float = 0) -> Answer:
        response = self.http.get(f"/v1/execs/{exec_id}", params={"wait": wait_s})
        assert response.status_code == 200, response.text
        return response.json()

    def ended(self, exec_id: str) -> Answer:
        deadline_s = time.monotonic() + 2 * HANG_S
        while (answer := self.look(exec_id, wait_s=5))["state"] in ACTIVE:
            assert time.monotonic() < deadline_s, answer
        return answer

    def cancel(self, exec_id: str, wait_s: float = 0) -> Answer:
        response = self.http.delete(f"/v1/execs/{exec_id}", params={"wait": wait_s})
        assert response.status_code in (200, 202), response.text
        return response.json()

    def output(self, exec_id: str, stream: str = "stdout") -> bytes:
        """All of it, to its end."""
        return b"".join(self.pieces(exec_id, stream))

    def pieces(self, exec_id: str, stream: str = "stdout", offset: int = 0) -> Iterator[bytes]:
        params: dict[str, Any] = {"stream": stream, "limit": 1 << 20, "wait": 5}
        for _ in itertools.count():
            response = self.http.get(f"/v1/execs/{exec_id}/output", params=params | {"offset": offset})
            assert response.status_code == 200, response.text
            yield response.content
            offset = int(response.headers["X-Next-Offset"])
            if response.headers["X-Eof"] == "true":
                return

    def hosts(self) -> dict[str, Answer]:
        response = self.http.get("/v1/hosts")
        assert response.status_code == 200, response.text
        return {host["name"]: host for host in response.json()["hosts"]}


class Session:
    """One session of a caller, which a restarted gateway still knows by its name."""

    def __init__(self, caller: Caller, name: str, answer: Answer) -> None:
        self._caller = caller
        self.name = name
        self.host: str = answer["host"]
        self.workspace: str = answer["workspace"]

    def post(
        self, command: str | None, *, key: str | None = None, wait_s: float = 0, **fields: Any
    ) -> httpx.Response:
        body = fields if command is None else {"command": command, **fields}
        headers = {} if key is None else {"Idempotency-Key": key}
        path = f"/v1/sessions/{self.name}/execs"
        return self._caller.http.post(path, params={"wait": wait_s}, json=body, headers=headers)

    def start(self, command: str | None, **fields: Any) -> str:
        """Its id; it runs, or will."""
        response = self.post(command, **fields)
        assert response.status_code in (200, 202), response.text
        exec_id = response.json()["id"]
        assert isinstance(exec_id, str)
        return exec_id

    def run(self, command: str | None, **fields: Any) -> Answer:
        """To its end."""
        response = self.post(command, wait_s=HANG_S, **fields)
        assert response.status_code in (200, 202), response.text
        answer: Answer = response.json()
        return self._caller.ended(answer["id"]) if answer["state"] in ACTIVE else answer

    def stdout(self, command: str, **fields: Any) -> str:
        """Of a command that has to succeed."""
        answer = self.run(command, **fields)
        assert (answer["state"], answer["exit_code"]) == ("exited", 0), answer
        text = answer["stdout"]["text"]
        assert isinstance(text, str)
        return text

    def delete(self) -> None:
        response = self._caller.http.delete(f"/v1/sessions/{self.name}")
        assert response.status_code == 204, response.text

    def files(self, method: str, path: str, content: bytes | None = None) -> httpx.Response:
        url = f"/v1/sessions/{self.name}/files"
        return self._caller.http.request(method, url, params={"path": path}, content=content)
