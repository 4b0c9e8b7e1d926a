"""Server-sent events over HTTP: one stream, its interruption, its end."""

import json
from typing import Any

import httpx

from gateway.protocol import StreamName
from tests.gateway.rest_rig import on_a_socket, open_rest


def parsed(text: str) -> list[tuple[str | None, str, Any]]:
    frames = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        frames.append((fields.get("id"), fields["event"], json.loads(fields["data"])))
    return frames


async def test_a_whole_stream_and_its_resumption_at_each_id() -> None:
    async with open_rest() as rest:
        exec_id = await rest.running()
        rest.host.write(exec_id, b"out\n")
        rest.host.write(exec_id, b"\xff", StreamName.STDERR)
        rest.host.finish(exec_id, returncode=3)
        url = f"/v1/execs/{exec_id}/events"
        response = await rest.http.get(url)
        assert response.headers["content-type"].startswith("text/event-stream")
        frames = parsed(response.text)
        names = [name for _, name, _ in frames]
        assert (names[0], sorted(names[1:-1]), names[-1]) == ("started", ["output", "output"], "exit")
        assert {"stream": "stdout", "offset": 0, "text": "out\n"} in [data for _, _, data in frames]
        assert {"stream": "stderr", "offset": 0, "b64": "/w=="} in [data for _, _, data in frames]
        status = frames[-1][2]["status"]
        assert (status["state"], status["exit_code"], status["stdout"]["total_bytes"]) == ("exited", 3, 4)
        assert status["stdout"]["text"] is None
        for position, (last_id, _, _) in enumerate(frames[:-1]):
            resumed = await rest.http.get(url, headers={"Last-Event-ID": str(last_id)})
            rest_of_it = [(name, data) for _, name, data in parsed(resumed.text)]
            assert sorted(map(str, rest_of_it)) == sorted(str(f[1:]) for f in frames[position + 1 :])
        over = await rest.http.get(url, headers={"Last-Event-ID": str(frames[-1][0])})
        assert (over.status_code, over.content) == (204, b"")


async def test_events_come_while_it_runs_and_a_reader_may_leave() -> None:
    async with open_rest() as rest, on_a_socket(rest.app) as address:
        exec_id = await rest.running()
        async with httpx.AsyncClient(base_url=f"http://{address}") as http:
            async with http.stream("GET", f"/v1/execs/{exec_id}/events") as response:
                lines = response.aiter_lines()
                assert await anext(lines) == "id: 1.0.0"
                rest.host.write(exec_id, b"now")
                while not (line := await anext(lines)).startswith("id: 1.3.0"):
                    assert "exit" not in line
            reads = len(rest.host.calls)
            async with http.stream(
                "GET", f"/v1/execs/{exec_id}/events", headers={"Last-Event-ID": "1.3.0"}
            ) as response:
                rest.host.write(exec_id, b" and then")
                rest.host.finish(exec_id)
                text = (await response.aread()).decode()
        assert [name for _, name, _ in parsed(text)] == ["output", "exit"]
        assert len(rest.host.calls) > reads


async def test_a_queued_reader_is_told_its_place() -> None:
    async with open_rest(slots=1) as rest, on_a_socket(rest.app) as address:
        first = await rest.running()
        second = await rest.start()
        async with (
            httpx.AsyncClient(base_url=f"http://{address}") as http,
            http.stream("GET", f"/v1/execs/{second}/events") as response,
        ):
            lines = response.aiter_lines()
            assert [await anext(lines) for _ in range(3)] == [
                "id: 0.0.0",
                "event: queued",
                'data: {"position":0}',
            ]
            rest.host.finish(first)
            await rest.http.delete(f"/v1/execs/{second}")
            text = "\n".join([line async for line in lines])
        assert '"state":"cancelled"' in text


async def test_a_host_that_is_gone_ends_it_as_lost() -> None:
    async with open_rest() as rest:
        exec_id = await rest.running()
        rest.host.write(exec_id, b"part")
        rest.host.lose()
        frames = parsed((await rest.http.get(f"/v1/execs/{exec_id}/events")).text)
        name, data = frames[-1][1:]
        assert (name, data["status"]["state"], data["status"]["exit_code"]) == ("exit", "lost", None)


async def test_what_is_asked_wrongly() -> None:
    async with open_rest() as rest:
        exec_id = await rest.running()
        wrong = await rest.http.get(f"/v1/execs/{exec_id}/events", headers={"Last-Event-ID": "7"})
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "Last-Event-ID")
        assert (await rest.http.get("/v1/execs/ex-nope/events")).status_code == 404
