"""Codex' exec-server protocol over a real WebSocket; the host is in memory."""

import base64
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from gateway.compat.codex_sessions import CodexSessions
from gateway.compat.codex_socket import codex_routes
from gateway.host import EndedBy
from gateway.limits import Limits
from gateway.protocol import StreamName
from tests.gateway.fake_host import FakeExec
from tests.gateway.rest_rig import Rest, on_a_socket, open_rest, until

TOKENS = {"alice": "alice-token-0123456789", "bob": "bob-token-0123456789"}


@dataclass
class Codex:
    """A client that keeps what it is told until it is asked for."""

    socket: ClientConnection
    rest: Rest
    ids: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    told: list[dict[str, Any]] = field(default_factory=list)
    answers: dict[int, dict[str, Any]] = field(default_factory=dict)

    async def send(self, method: str, **params: Any) -> int:
        number = next(self.ids)
        await self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        return number

    async def answer(self, number: int) -> dict[str, Any]:
        while number not in self.answers:
            await self.hear()
        return self.answers.pop(number)

    async def hear(self) -> None:
        message = json.loads(await self.socket.recv())
        if "method" in message:
            self.told.append(message)
        else:
            self.answers[message["id"]] = message

    async def ask(self, method: str, **params: Any) -> Any:
        answer = await self.answer(await self.send(method, **params))
        assert "result" in answer, answer
        return answer["result"]

    async def error(self, method: str, **params: Any) -> tuple[int, str]:
        answer = await self.answer(await self.send(method, **params))
        assert "error" in answer, answer
        return answer["error"]["code"], answer["error"]["message"]

    async def begin(self, resumes: str | None = None) -> str:
        result = await self.ask("initialize", clientName="codex-environment", resumeSessionId=resumes)
        await self.socket.send('{"method": "initialized", "params": {}}')
        found: str = result["sessionId"]
        return found

    async def news(self, count: int) -> list[tuple[str, dict[str, Any]]]:
        while len(self.told) < count:
            await self.hear()
        found, self.told = self.told[:count], self.told[count:]
        return [(each["method"], each["params"]) for each in found]

    async def started(self, process_id: str = "p", **fields: Any) -> FakeExec:
        count = len(self.rest.host.starts)
        await self.ask("process/start", **start(process_id, **fields))
        assert len(self.rest.host.starts) == count + 1
        return self.rest.host.execs[self.rest.host.starts[-1]]


def start(process_id: str = "p", **fields: Any) -> dict[str, Any]:
    """With all the fields that codex-cli 0.169 sends."""
    return {
        "processId": process_id,
        "metadata": {"threadId": "t", "toolCallId": "call_0"},
        "argv": ["/bin/bash", "-lc", "make"],
        "cwd": "file:///work/of%20mine",
        "envPolicy": {"inherit": "all", "ignoreDefaultExcludes": True, "exclude": [], "set": {"B": "2"}},
        "env": {"A": "1"},
        "tty": False,
        "pipeStdin": False,
        "arg0": None,
        "sandbox": None,
        "enforceManagedNetwork": False,
        "managedNetwork": None,
        **fields,
    }


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@contextlib.asynccontextmanager
async def served(*, resume_s: float = 60.0, **options: Any) -> AsyncIterator[tuple[Rest, str]]:
    sessions = CodexSessions(resume_s)
    async with open_rest(limits=Limits(allow_absolute_cwd=True), **options) as rest:
        app = FastAPI()
        app.state.gateway = rest.gateway
        app.include_router(codex_routes(sessions))
        async with on_a_socket(app) as address:
            yield rest, f"ws://{address}/compat/codex"
        await sessions.close()


@contextlib.asynccontextmanager
async def connected(rest: Rest, url: str, resumes: str | None = None) -> AsyncIterator[Codex]:
    async with connect(url) as socket:
        codex = Codex(socket, rest)
        await codex.begin(resumes)
        yield codex


@contextlib.asynccontextmanager
async def client(**options: Any) -> AsyncIterator[Codex]:
    async with served(**options) as (rest, url), connected(rest, f"{url}/s") as codex:
        yield codex


async def test_a_process_from_its_start_to_its_end() -> None:
    async with client() as codex:
        one = await codex.started()
        order = one.order
        assert (order.argv, order.cwd) == (("/bin/bash", "-lc", "make"), "/work/of mine")
        assert (order.env["A"], order.env["B"], order.keeps_stdin) == ("1", "2", False)
        codex.rest.host.write(order.exec_id, b"out\n")
        assert await codex.news(1) == [
            ("process/output", {"processId": "p", "seq": 1, "stream": "stdout", "chunk": b64(b"out\n")})
        ]
        codex.rest.host.write(order.exec_id, b"err\n", StreamName.STDERR)
        [(_, output)] = await codex.news(1)
        assert (output["seq"], output["stream"]) == (2, "stderr")
        codex.rest.host.finish(order.exec_id, returncode=3)
        assert await codex.news(2) == [
            ("process/exited", {"processId": "p", "seq": 3, "exitCode": 3, "sandboxDenied": False}),
            ("process/closed", {"processId": "p", "seq": 4}),
        ]
        assert await codex.ask("process/terminate", processId="p") == {"running": False}


async def test_what_it_is_part_of_is_told_to_the_proxy() -> None:
    async with client() as codex:
        one = await codex.started()
        record = codex.rest.gateway.execs.find(one.order.exec_id)
        assert record is not None
        assert (record.labels["tool_call_id"], record.session) == ("call_0", "s")


async def test_it_is_answered_when_there_is_room() -> None:
    async with client(slots=1) as codex:
        first = await codex.started("first")
        waiting = await codex.send("process/start", **start("second"))
        assert (await codex.ask("process/terminate", processId="none"))["running"] is False
        assert waiting not in codex.answers
        codex.rest.host.finish(first.order.exec_id)
        assert (await codex.answer(waiting))["result"] == {"processId": "second", "sandboxType": "none"}


async def test_who_leaves_before_the_start_wants_it_no_more() -> None:
    async with served(slots=1) as (rest, url):
        busy = await rest.running()
        async with connected(rest, f"{url}/s") as codex:
            await codex.send("process/start", **start())
            await until(lambda: len(rest.gateway.execs.active_in("", "s")) == 2)
        await until(lambda: len(rest.gateway.execs.active_in("", "s")) == 1)
        rest.host.finish(busy)
        assert rest.host.starts == [busy]


async def test_what_the_gateway_leaves_to_the_next_one_is_not_said_to_have_ended() -> None:
    async with client(slots=1) as codex:
        one = await codex.started()
        waiting = await codex.send("process/start", **start("second"))
        await until(lambda: len(codex.rest.gateway.execs.active_in("", "s")) == 2)
        codex.rest.host.write(one.order.exec_id, b"on")
        assert [method for method, _ in await codex.news(1)] == ["process/output"]
        codex.rest.gateway.execs.leave("a new version")
        assert "not run" in (await codex.answer(waiting))["error"]["message"]
        assert await codex.ask("process/terminate", processId="none") == {"running": False}
        assert codex.told == []


async def test_the_same_start_again_is_the_same_process() -> None:
    async with client() as codex:
        both = [await codex.send("process/start", **start()) for _ in range(2)]
        for number in both:
            assert (await codex.answer(number))["result"]["processId"] == "p"
        assert len(codex.rest.host.starts) == 1
        code, message = await codex.error("process/start", **start(argv=["other"]))
        assert (code, "processId" in message) == (-32600, True)
        codex.rest.host.write(codex.rest.host.starts[0], b"once")
        codex.rest.host.finish(codex.rest.host.starts[0])
        assert [params["seq"] for _, params in await codex.news(3)] == [1, 2, 3]


async def test_output_is_read_by_number() -> None:
    async with client() as codex:
        one = await codex.started()
        for data in (b"one", b"two"):
            codex.rest.host.write(one.order.exec_id, data)
            await codex.news(1)
        first = await codex.ask("process/read", processId="p", afterSeq=None, maxBytes=3, waitMs=0)
        assert first == {
            "chunks": [{"seq": 1, "stream": "stdout", "chunk": b64(b"one")}],
            "nextSeq": 2,
            "exited": False,
            "exitCode": None,
            "closed": False,
            "failure": None,
            "sandboxDenied": False,
        }
        waiting = await codex.send("process/read", processId="p", afterSeq=2, waitMs=30_000)
        codex.rest.host.finish(one.order.exec_id, returncode=1)
        answer = (await codex.answer(waiting))["result"]
        assert answer["nextSeq"] >= 4
        over = await codex.ask("process/read", processId="p", afterSeq=4, waitMs=30_000)
        assert (over["chunks"], over["exited"], over["exitCode"], over["closed"]) == ([], True, 1, True)


async def test_input_is_written_once_for_each_id() -> None:
    async with client() as codex:
        one = await codex.started(pipeStdin=True)
        for write_id in ("a", "a", "b"):
            written = await codex.ask("process/write", processId="p", chunk=b64(b"x\n"), writeId=write_id)
            assert written == {"status": "accepted"}
        assert one.stdin == b"x\nx\n"
        await codex.started("deaf")
        for process_id, status in (("deaf", "stdinClosed"), ("none", "unknownProcess")):
            found = await codex.ask("process/write", processId=process_id, chunk="", writeId="c")
            assert found == {"status": status}


async def test_a_terminal_has_one_output() -> None:
    async with client() as codex:
        one = await codex.started(tty=True)
        assert one.order.tty is not None
        codex.rest.host.write(one.order.exec_id, b"$ ")
        [(_, output)] = await codex.news(1)
        assert output["stream"] == "pty"
        await codex.ask("process/write", processId="p", chunk=b64(b"ls\r"), writeId="1")
        assert one.stdin == b"ls\r"


async def test_a_process_is_interrupted_and_terminated() -> None:
    async with client() as codex:
        one = await codex.started()
        assert await codex.ask("process/signal", processId="p", signal="interrupt") == {}
        assert one.signals == [("SIGINT", "group")]
        assert await codex.ask("process/terminate", processId="p") == {"running": True}
        await until(lambda: codex.rest.host.stops)
        codex.rest.host.finish(one.order.exec_id, EndedBy.STOP, returncode=-15)
        exited, _ = await codex.news(2)
        assert exited[1]["exitCode"] == 130


async def test_an_exit_code_that_nobody_knows_is_no_exit_code() -> None:
    async with client() as codex:
        one = await codex.started()
        codex.rest.host.finish(one.order.exec_id, EndedBy.NOBODY, returncode=None)
        (said, output), (_, exited), _ = await codex.news(3)
        assert (said, output["stream"], exited["exitCode"]) == ("process/output", "stderr", -1)
        assert b"no exit code" in base64.b64decode(output["chunk"])
        assert (await codex.ask("process/read", processId="p", afterSeq=1))["failure"]


async def test_who_comes_back_in_time_has_missed_nothing() -> None:
    async with served() as (rest, url):
        async with connect(f"{url}/s") as socket:
            first = Codex(socket, rest)
            session = await first.begin()
            one = await first.started()
            rest.host.write(one.order.exec_id, b"heard")
            await first.news(1)
            async with connect(f"{url}/s") as other:
                answer = Codex(other, rest)
                code, message = await answer.error("initialize", clientName="c", resumeSessionId=session)
                assert (code, "attached" in message) == (-32600, True)
        rest.host.write(one.order.exec_id, b"missed")
        async with connected(rest, f"{url}/s", await _detached(rest, url, session)) as second:
            seen = await second.ask("process/read", processId="p", afterSeq=1, waitMs=30_000)
            assert [base64.b64decode(each["chunk"]) for each in seen["chunks"]] == [b"missed"]
            rest.host.finish(one.order.exec_id)
            assert [method for method, _ in await second.news(2)] == ["process/exited", "process/closed"]


async def _detached(rest: Rest, url: str, session: str) -> str:
    """The id again, once its connection is known to be gone."""
    while True:
        async with connect(f"{url}/s") as socket:
            codex = Codex(socket, rest)
            answer = await codex.answer(
                await codex.send("initialize", clientName="c", resumeSessionId=session)
            )
        if "result" in answer:
            return session
        assert "attached" in answer["error"]["message"]


async def test_of_who_does_not_come_back_everything_is_ended() -> None:
    async with served(resume_s=0.05) as (rest, url):
        async with connected(rest, url) as codex:
            one = await codex.started()
            record = rest.gateway.execs.find(one.order.exec_id)
            assert record is not None
            assert record.session.startswith("codex-")
        await until(lambda: rest.host.stops)
        rest.host.finish(one.order.exec_id, EndedBy.STOP, returncode=-15)
        await until(lambda: rest.gateway.sessions.find("", record.session) is None)
        async with connect(url) as socket:
            code, _ = await Codex(socket, rest).error("initialize", clientName="c", resumeSessionId="gone")
            assert code == -32600


async def test_a_session_that_the_url_names_stays() -> None:
    async with served(resume_s=0.05) as (rest, url):
        async with connected(rest, f"{url}/named") as codex:
            one = await codex.started()
        await until(lambda: rest.host.stops)
        rest.host.finish(one.order.exec_id, EndedBy.STOP, returncode=-15)
        await until(lambda: not rest.gateway.execs.active_in("", "named"))
        assert rest.gateway.sessions.find("", "named") is not None


@pytest.mark.parametrize(
    ("method", "params", "code", "named"),
    [
        ("fs/watchMissing", {}, -32601, "fs/watchMissing"),
        ("process/start", {"processId": "p"}, -32602, "argv"),
        ("process/start", start(cwd="/work"), -32602, "cwd"),
        ("process/start", start(cwd="https://host/work"), -32602, "cwd"),
        ("process/start", start(sandbox={"mode": "read-only"}), -32600, "sandbox"),
        ("process/start", start(enforceManagedNetwork=True), -32600, "enforceManagedNetwork"),
        ("process/start", start(argv=["a\0b"]), -32602, "argv"),
        ("process/read", {"processId": "none"}, -32600, "none"),
        ("process/signal", {"processId": "none", "signal": "kill"}, -32602, "signal"),
        ("fs/readFile", {"path": "file:///a%00b"}, -32602, "path"),
        ("fs/remove", {"path": "file:///a", "sandbox": {}}, -32600, "sandbox"),
    ],
)
async def test_what_is_wrong_is_named(method: str, params: dict[str, Any], code: int, named: str) -> None:
    async with client() as codex:
        found, message = await codex.error(method, **params)
        assert (found, named in message) == (code, True), message


async def test_a_command_outside_of_its_workspace_needs_leave() -> None:
    async with (
        open_rest() as rest,
        on_a_socket(rest.app) as address,
        connected(rest, f"ws://{address}/compat/codex/s") as codex,
    ):
        code, message = await codex.error("process/start", **start())
        assert (code, "cwd" in message) == (-32602, True)


async def test_connections_begin_with_initialize() -> None:
    async with served() as (rest, url), connect(f"{url}/s") as socket:
        codex = Codex(socket, rest)
        assert (await codex.error("process/terminate", processId="p"))[0] == -32600
        await socket.send("{")
        assert (await codex.answer(-1))["error"]["code"] == -32700
        info = (await codex.ask("initialize", clientName="c"))["environmentInfo"]
        session = (await rest.http.get("/v1/sessions/s")).json()
        assert info["cwd"] == f"file://{session['workspace']}"
        assert info["capabilities"]["shellSnapshotV2"] is False
        assert (await codex.error("initialize", clientName="c"))[0] == -32600


async def test_who_may_connect() -> None:
    async with open_rest(tokens=TOKENS, token=TOKENS["alice"]) as rest, on_a_socket(rest.app) as address:
        url = f"ws://{address}/compat/codex/s"
        for wrong in (
            url,
            f"{url}?token=wrong",
            f"ws://{address}/compat/codex/.hidden?token={TOKENS['bob']}",
        ):
            with pytest.raises(InvalidStatus):
                await connect(wrong)
        async with connected(rest, f"{url}?token={TOKENS['alice']}"):
            pass
        headers = {"Authorization": f"Bearer {TOKENS['bob']}"}
        async with connect(url, additional_headers=headers) as socket:
            await Codex(socket, rest).begin()
        assert rest.gateway.sessions.find("bob", "s") is not None
