"""Tool calls as real commands through the tool-execution gateway's REST API.

A session of ours is a session there, deleted at its end. A refused call (429, 503) was not run and is
asked again with the same idempotency key, so a lost answer never runs a command twice.
"""

import asyncio
import uuid
from typing import Any

import httpx
import msgspec
import xxhash

from loadgen.busy import busy_argv
from loadgen.client import seconds
from loadgen.tools import ToolContext, ToolError, ToolOutcome
from loadgen.workload import ToolCall

WAIT_S = 25
"""One long poll: below the 30 s after which common load balancers cut an idle connection."""
RETRY_DELAY_S = 1.0
LONGEST_RETRY_AFTER_S = 30.0
MAX_CONNECTION_ERRORS = 5
CLOSE_TIMEOUT_S = 5.0
TIMEOUT_FACTOR = 20.0
"""A command may take this many times its traced duration on a crowded host, and ``TIMEOUT_FLOOR_S``."""
TIMEOUT_FLOOR_S = 120.0
LONGEST_TIMEOUT_S = 7 * 86400.0
"""The gateway allows no more."""
TERMINAL_STATES = frozenset({"exited", "timed_out", "cancelled", "oom_killed", "lost", "rejected"})


class ExecView(msgspec.Struct):
    id: str
    state: str
    exit_code: int | None = None
    queue_s: float | None = None
    run_s: float | None = None


class GatewayTools:
    def __init__(self, http: httpx.AsyncClient, url: str, *, run_id: str) -> None:
        self._http = http
        self._url = url.rstrip("/")
        self._run_id = run_id
        """Keeps the sessions of two runs apart at one gateway."""

    async def open(self, session: str) -> None:
        response = await self._request("PUT", self._session_url(session), {})
        if response.status_code not in (200, 201):
            raise ToolError(f"gateway session: HTTP {response.status_code}")

    async def run(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        view = await self._submit(call, context)
        while view.state not in TERMINAL_STATES:
            view = view_of(await self._request("GET", f"{self._url}/v1/execs/{view.id}?wait={WAIT_S}"))
        # A command of the trace may well have failed when it was traced; ours may not.
        if view.state != "exited" or (call.command is None and view.exit_code != 0):
            raise ToolError(f"tool {view.state}, exit code {view.exit_code}")
        return ToolOutcome(queue_s=view.queue_s, run_s=view.run_s)

    async def close(self, session: str) -> None:
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._http.delete(self._session_url(session))
        except (httpx.HTTPError, TimeoutError, OSError):
            return  # The gateway's own idle deadline ends the session.

    async def _submit(self, call: ToolCall, context: ToolContext) -> ExecView:
        key = {"idempotency-key": str(uuid.uuid4())}
        url = f"{self._session_url(context.session)}/execs?wait={WAIT_S}"
        body = exec_body(call, context)
        while True:
            response = await self._request("POST", url, body, key)
            if response.status_code not in (429, 503):
                return view_of(response)
            asked_s = seconds(response.headers.get("retry-after"))
            await asyncio.sleep(min(asked_s or RETRY_DELAY_S, LONGEST_RETRY_AFTER_S))

    async def _request(
        self, method: str, url: str, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """Every call we make is idempotent, by method or by key, so a broken connection is tried again."""
        content = None if body is None else msgspec.json.encode(body)
        for attempt in range(1, MAX_CONNECTION_ERRORS + 1):
            try:
                return await self._http.request(method, url, content=content, headers=headers)
            except (httpx.HTTPError, TimeoutError, OSError) as exc:
                if attempt == MAX_CONNECTION_ERRORS:
                    raise ToolError(f"gateway connection: {type(exc).__name__}") from exc
            await asyncio.sleep(RETRY_DELAY_S)
        raise AssertionError("unreachable")

    def _session_url(self, session: str) -> str:
        return f"{self._url}/v1/sessions/{gateway_name(self._run_id, session)}"


def gateway_name(run_id: str, session: str) -> str:
    """A name that the gateway takes: no longer than 128 characters of a small alphabet, and still unique."""
    plain = "".join(c if (c.isascii() and c.isalnum()) or c in "-_." else "-" for c in session)
    if plain != session or len(session) > 80:
        plain = f"{plain[:60]}-{xxhash.xxh64_hexdigest(session.encode())}"
    return f"lg-{run_id}-{plain}"


def exec_body(call: ToolCall, context: ToolContext) -> dict[str, Any]:
    command = {"command": call.command} if call.command else {"argv": busy_argv(call)}
    labels = {"llm_session": context.mars_session, "tool_call_id": context.tool_call_id}
    return command | {
        "cpu": call.cores,
        "timeout_s": min(max(TIMEOUT_FLOOR_S, call.traced_s * TIMEOUT_FACTOR), LONGEST_TIMEOUT_S),
        "labels": {name: value for name, value in labels.items() if value is not None},
    }


def view_of(response: httpx.Response) -> ExecView:
    if response.status_code not in (200, 202):
        raise ToolError(f"gateway exec: HTTP {response.status_code}")
    try:
        return msgspec.json.decode(response.content, type=ExecView)
    except msgspec.MsgspecError as exc:
        raise ToolError("gateway exec: the answer is no exec") from exc
