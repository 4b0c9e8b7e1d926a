"""MCP with the SDK's own client, over a real socket; the host is in memory."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, TextContent

from gateway.compat.mcp_tools import TOOLS, name_of
from gateway.host import EndedBy
from tests.gateway.rest_rig import Rest, on_a_socket, open_rest, until

TOKENS = {"alice": "alice-token-0123456789", "bob": "bob-token-0123456789"}
ERAS = pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])


@dataclass
class Agent:
    client: Client
    rest: Rest

    async def call(self, tool: str, /, meta: Any = None, **arguments: Any) -> CallToolResult:
        return await self.client.call_tool(tool, arguments, meta=meta)

    async def ended(self, output: bytes = b"", returncode: int = 0) -> None:
        """The one command that runs writes something and exits."""
        running = await self.running()
        self.rest.host.write(running, output)
        self.rest.host.finish(running, returncode=returncode)

    async def running(self) -> str:
        await until(lambda: len(self.rest.host.running()) == 1)
        return self.rest.host.running()[0]


@contextlib.asynccontextmanager
async def connected(
    rest: Rest, address: str, *, session: str = "s", mode: str = "auto", token: str | None = None
) -> AsyncIterator[Agent]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        Client(
            streamable_http_client(f"http://{address}/mcp/{session}", http_client=http), mode=mode
        ) as client,
    ):
        yield Agent(client, rest)


@contextlib.asynccontextmanager
async def agent(mode: str = "auto", **options: Any) -> AsyncIterator[Agent]:
    async with (
        open_rest(**options) as rest,
        on_a_socket(rest.app) as address,
        connected(rest, address, mode=mode) as found,
    ):
        yield found


def text(result: CallToolResult) -> str:
    [content] = result.content
    assert isinstance(content, TextContent)
    return content.text


def told(result: CallToolResult) -> dict[str, Any]:
    assert result.structured_content is not None
    return result.structured_content


@ERAS
async def test_a_command_is_answered_with_its_output_and_exit_code(mode: str) -> None:
    async with agent(mode) as one, asyncio.TaskGroup() as group:
        asked = group.create_task(one.call("shell", command="make", cwd="src", env={"A": "1"}, timeout_s=9))
        await one.ended(b"built\n", returncode=3)
        result = await asked
        assert text(result) == "built\n[exit code 3]"
        assert not result.is_error
        [order] = [each.order for each in one.rest.host.execs.values()]
        assert (order.argv, order.cwd, order.env["A"]) == (("bash", "-c", "make"), "src", "1")
        assert (order.timeout_s, order.merges_output) == (9, True)
        assert told(result) == {
            "exec_id": order.exec_id,
            "state": "exited",
            "exit_code": 3,
            "timed_out": False,
            "reason": None,
            "output_bytes": 6,
            "truncated": False,
            "next_offset": 6,
        }


@ERAS
async def test_what_takes_long_is_answered_with_its_id(mode: str) -> None:
    async with agent(mode) as one:
        result = await one.call("shell", command="make", wait_s=0)
        exec_id = await one.running()
        assert (told(result)["exec_id"], told(result)["exit_code"]) == (exec_id, None)
        assert exec_id in text(result)
        one.rest.host.write(exec_id, "zwölf\n".encode())
        part = await one.call("shell_output", exec_id=exec_id, max_bytes=3, wait_s=5)
        assert (text(part), told(part)["next_offset"], told(part)["is_eof"]) == ("zw", 2, False)
        one.rest.host.finish(exec_id)
        rest = await one.call("shell_output", exec_id=exec_id, offset=2, wait_s=5)
        assert text(rest) == "ölf\n"
        status = await one.call("shell_status", exec_id=exec_id, wait_s=5)
        assert (text(status), told(status)["state"]) == ("[exit code 0]", "exited")


async def test_a_command_is_cancelled_on_request() -> None:
    async with agent() as one, asyncio.TaskGroup() as group:
        exec_id = told(await one.call("shell", command="make", wait_s=0))["exec_id"]
        await one.running()
        asked = group.create_task(one.call("shell_cancel", exec_id=exec_id))
        await until(lambda: one.rest.host.stops)
        one.rest.host.finish(exec_id, EndedBy.STOP, returncode=-15)
        assert told(await asked)["state"] == "cancelled"


async def test_a_call_that_its_client_gives_up_is_ended() -> None:
    """As opencode says it when its user aborts."""
    async with open_rest() as rest, asyncio.TaskGroup() as group:
        headers = await shaken(rest, "2025-11-25")
        params = {"name": "shell", "arguments": {"command": "make"}, "_meta": {"progressToken": 2}}
        call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params}
        asked = group.create_task(rest.http.post("/mcp/s", json=call, headers=headers))
        await until(rest.host.running)
        over = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}}
        assert (await rest.http.post("/mcp/s", json=over, headers=headers)).status_code == 202
        await until(lambda: rest.host.stops)
        assert (await asked).status_code == 200


@ERAS
async def test_a_call_that_comes_again_with_its_id_runs_once(mode: str) -> None:
    meta = {"callId": "call_0", "threadId": "t", "sessionId": "s", "x-codex-turn-metadata": {"turn_id": "1"}}
    async with agent(mode) as one, asyncio.TaskGroup() as group:
        both = [group.create_task(one.call("shell", meta, command="make")) for _ in range(2)]
        await one.ended(b"once")
        assert [text(await each) for each in both] == ["once\n[exit code 0]"] * 2
        assert text(await one.call("shell", meta, command="make")) == "once\n[exit code 0]"
        other = await one.call("shell", meta, command="other")
        assert (other.is_error, told(other)["code"]) == (True, "idempotency_key_reused")
        assert len(one.rest.host.starts) == 1
        [record] = [one.rest.gateway.execs.find(each) for each in one.rest.host.starts]
        assert record is not None
        assert record.labels["tool_call_id"] == "call_0"
        next_turn = {**meta, "x-codex-turn-metadata": {"turn_id": "2"}}
        again = group.create_task(one.call("shell", next_turn, command="make"))
        await until(lambda: len(one.rest.host.starts) == 2)
        await one.ended(b"twice")
        assert text(await again) == "twice\n[exit code 0]"


async def test_calls_without_an_id_of_their_own_are_calls_of_their_own() -> None:
    async with agent("legacy") as one, asyncio.TaskGroup() as group:
        for count in (1, 2):
            asked = group.create_task(one.call("shell", command="make"))
            await until(lambda count=count: len(one.rest.host.starts) == count)
            await one.ended()
            await asked


async def test_of_long_output_the_middle_is_left_out() -> None:
    async with agent() as one, asyncio.TaskGroup() as group:
        asked = group.create_task(one.call("shell", command="make", max_output_bytes=1000))
        await one.ended(b"a" * 700 + b"m" * 700 + b"z" * 700)
        shown = text(await asked)
        assert shown.startswith("a" * 500 + "\n[... 1100 bytes left out, from offset 500 on ...]\n")
        assert shown.endswith("z" * 500 + "\n[exit code 0]")


async def test_files_and_a_session_that_is_made_when_it_is_named() -> None:
    async with open_rest(sessions=()) as rest, on_a_socket(rest.app) as address:
        async with connected(rest, address, session="new") as one:
            written = await one.call("write_file", path="a/b", content="zwölf", mode="755")
            assert text(written) == "a/b: 6 bytes written"
            read = await one.call("read_file", path="a/b", max_bytes=3)
            assert (text(read), told(read)["next_offset"]) == ("zw", 2)
            missing = await one.call("read_file", path="none")
            assert (missing.is_error, told(missing)["code"]) == (True, "file_not_found")
        assert (await rest.http.get("/v1/sessions/new")).json()["labels"] == {"door": "mcp"}


async def test_what_is_wrong_is_named() -> None:
    async with agent(queue_limit=0, slots=0.05) as one:
        for arguments, named in (
            ({}, "command"),
            ({"command": "x", "wait_s": 60}, "wait_s"),
            ({"command": "x", "colour": 1}, "colour"),
        ):
            result = await one.call("shell", **arguments)
            assert (result.is_error, named in text(result)) == (True, True), text(result)
        unknown = await one.call("shell_status", exec_id="ex-none")
        assert told(unknown)["code"] == "exec_not_found"


async def test_a_command_without_room_is_said_not_to_have_run() -> None:
    async with agent(slots=1, queue_limit=0) as one:
        await one.rest.running()
        full = await one.call("shell", command="make")
        assert (full.is_error, told(full)["code"]) == (True, "queue_full")


async def test_each_tenant_and_each_session_has_its_own() -> None:
    async with open_rest(tokens=TOKENS, token=TOKENS["alice"]) as rest, on_a_socket(rest.app) as address:
        async with connected(rest, address, token=TOKENS["alice"]) as alice:
            exec_id = told(await alice.call("shell", command="make", wait_s=0))["exec_id"]
        for token, session in ((TOKENS["bob"], "s"), (TOKENS["alice"], "t")):
            async with connected(rest, address, session=session, token=token) as other:
                found = await other.call("shell_status", exec_id=exec_id)
                assert told(found)["code"] == "exec_not_found"
        async with httpx.AsyncClient() as http:
            for headers in ({}, {"Authorization": "Bearer wrong"}):
                answer = await http.post(f"http://{address}/mcp/s", json={}, headers=headers)
                assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")


async def test_tools_say_what_they_take() -> None:
    async with agent() as one:
        tools = (await one.client.list_tools()).tools
        assert [tool.name for tool in tools] == [name_of(tool) for tool in TOOLS]
        shell = tools[0]
        assert shell.input_schema["required"] == ["command"]
        assert "tool" not in shell.input_schema["properties"]
        assert shell.description is not None
        assert "exec_id" in shell.description


async def shaken(rest: Rest, version: str) -> dict[str, str]:
    """The headers of a client after its handshake."""
    headers = {"Accept": "text/event-stream, application/json"}
    hello = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
    body = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello}
    answer = await rest.http.post("/mcp/s", json=body, headers=headers)
    assert answer.json()["result"]["protocolVersion"] == version
    headers |= {"mcp-session-id": answer.headers["mcp-session-id"], "mcp-protocol-version": version}
    note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert (await rest.http.post("/mcp/s", json=note, headers=headers)).status_code == 202
    return headers


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
async def test_a_handshake_as_clients_send_it(version: str) -> None:
    """Codex sends the third, opencode the last."""
    async with open_rest() as rest:
        headers = await shaken(rest, version)
        asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": {"progressToken": 0}}}
        tools = (await rest.http.post("/mcp/s", json=asked, headers=headers)).json()["result"]["tools"]
        assert len(tools) == len(TOOLS)
        assert (await rest.http.delete("/mcp/s", headers=headers)).status_code == 200


async def test_session_ids_are_as_elsewhere() -> None:
    async with open_rest() as rest:
        answer = await rest.http.post("/mcp/.hidden", json={})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "sid")
