"""Commands, their output and their exit codes survive gateways and connections."""

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway_live.caller import Caller
from tests.gateway_live.gateway_process import GatewayProcess
from tests.gateway_live.processes import carrying, eventually, kill_all, named
from tests.gateway_live.world import World, open_world

COUNT = 200
COUNTING = f"for n in $(seq {COUNT}); do echo $n; echo $n >&2; sleep 0.01; done; exit 42"
COUNTED = "".join(f"{n}\n" for n in range(1, COUNT + 1))


@pytest.fixture
def ssh() -> Iterator[World]:
    with open_world("ssh") as world:
        yield world


def assert_whole(world: World, exec_id: str) -> None:
    answer = world.caller.ended(exec_id)
    assert (answer["state"], answer["exit_code"]) == ("exited", 42), answer
    assert world.caller.output(exec_id).decode() == COUNTED
    assert world.caller.output(exec_id, "stderr").decode() == COUNTED


def test_gateway_killed_in_mid_command(world: World) -> None:
    exec_id = world.session().start(COUNTING)
    next(piece for piece in world.caller.pieces(exec_id) if piece)
    world.restart_gateway()
    assert_whole(world, exec_id)


def test_command_that_ends_while_there_is_no_gateway(world: World) -> None:
    exec_id = world.session().start(COUNTING)
    next(piece for piece in world.caller.pieces(exec_id) if piece)
    world.kill_gateway()
    eventually(lambda: carrying(exec_id) == [], "it ends by itself")
    world.start_gateway()
    assert_whole(world, exec_id)


def test_timeout_holds_while_there_is_no_gateway(world: World) -> None:
    """The host enforces it."""
    exec_id = world.session().start("echo up; setsid sleep 1000 & sleep 1000", timeout_s=1)
    eventually(lambda: len(carrying(exec_id)) >= 2, "it runs")
    world.kill_gateway()
    eventually(lambda: carrying(exec_id) == [], "the host ends it")
    world.start_gateway()
    answer = world.caller.ended(exec_id)
    assert (answer["state"], answer["exit_code"], answer["stdout"]["text"]) == ("timed_out", 124, "up\n")


def test_sessions_and_their_files_survive_a_crash(world: World) -> None:
    session = world.session(env={"COLOUR": "red"}, labels={"llm_session": "abc"})
    session.stdout("echo kept > file")
    world.restart_gateway()
    assert session.stdout("cat file; echo $COLOUR") == "kept\nred\n"
    again = world.caller.http.get(f"/v1/sessions/{session.name}").json()
    assert (again["workspace"], again["labels"]) == (session.workspace, {"llm_session": "abc"})


def test_queued_command_of_a_killed_gateway_is_never_half_run(place: str) -> None:
    """It never started: after the crash it is told so, or it is run; it is not forgotten in silence."""
    with open_world(place, slots=1) as world:
        session, trace = world.session(), world.trace()
        blocker = world.session().start("sleep 1000")
        queued = session.start(f"sleep 0; echo ran >> {trace}", key="queued")
        assert world.caller.look(queued)["state"] == "queued"
        world.restart_gateway()
        world.caller.cancel(blocker, wait_s=20)
        answer = session.run(f"sleep 0; echo ran >> {trace}", key="queued")
        assert (answer["id"], answer["state"]) == (queued, "exited")
        assert trace.read_text() == "ran\n"


def test_gateway_killed_again_and_again(world: World) -> None:
    exec_id = world.session().start(COUNTING)
    for _ in range(3):
        world.restart_gateway()
    assert_whole(world, exec_id)


def test_connection_cut_in_mid_command(ssh: World) -> None:
    worker = ssh.workers[ssh.host]
    exec_id = ssh.session().start(COUNTING)
    next(piece for piece in ssh.caller.pieces(exec_id) if piece)
    assert worker.cut() > 0
    assert_whole(ssh, exec_id)


def test_connection_cut_while_commands_start(ssh: World) -> None:
    """What was sent and not answered is looked for, not sent twice."""
    worker, session, trace = ssh.workers[ssh.host], ssh.session(), ssh.trace()
    ids = []
    for number in range(40):
        ids.append(session.start(f"echo {number} >> {trace}"))
        if number % 8 == 0:
            worker.cut()
    assert {ssh.caller.ended(each)["state"] for each in ids} == {"exited"}
    assert sorted(int(line) for line in trace.read_text().splitlines()) == list(range(40))


def test_host_that_comes_back_goes_on(ssh: World) -> None:
    """Network and sshd were gone for a while; agent and commands were not."""
    worker, goon = ssh.workers[ssh.host], ssh.trace()
    exec_id = ssh.session().start(f"until [ -e {goon} ]; do sleep 0.02; done; {COUNTING}")
    eventually(lambda: carrying(exec_id), "it runs")
    ssh.unplug(ssh.host)
    eventually(lambda: not ssh.is_up(), "the gateway notices")
    goon.touch()
    worker.start()
    assert_whole(ssh, exec_id)
    eventually(ssh.is_up, "the host is up again")


def test_host_that_stays_away_is_lost() -> None:
    with open_world("ssh", workers=2, lost_after_s=1) as world:
        first, second = (world.session(host=name) for name in world.workers)
        gone = first.start("sleep 1000")
        eventually(lambda: carrying(gone), "it runs")
        world.unplug(first.host)
        answer = world.caller.ended(gone)
        assert (answer["state"], answer["exit_code"]) == ("lost", None)
        assert second.stdout("echo others go on") == "others go on\n"
        world.workers[first.host].start()
        eventually(lambda: carrying(gone) == [], "what still ran there is stopped")
        assert world.caller.look(gone)["state"] == "lost"


def test_event_stream_resumes_after_a_crash(world: World) -> None:
    """With ``Last-Event-ID``: no output twice, none missing."""
    exec_id = world.session().start(COUNTING)
    first = _events(world, exec_id, None, enough=2)
    world.restart_gateway()
    rest = _events(world, exec_id, next(id_ for id_, *_ in reversed(first) if id_))
    output = [data for _, kind, data in first + rest if kind == "output" and data["stream"] == "stdout"]
    assert "".join(data["text"] for data in output) == COUNTED
    _, kind, last = rest[-1]
    assert (kind, last["status"]["state"], last["status"]["exit_code"]) == ("exit", "exited", 42)


Event = tuple[str, str, dict[str, Any]]


def _events(world: World, exec_id: str, after: str | None, enough: int | None = None) -> list[Event]:
    """Id, kind and data of each, from the one after ``after``; up to ``enough`` with output."""
    headers = {} if after is None else {"Last-Event-ID": after}
    found: list[Event] = []
    fields: dict[str, str] = {}
    path = f"/v1/execs/{exec_id}/events"
    with world.caller.http.stream("GET", path, headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            name, _, value = line.partition(": ")
            if name:
                fields[name] = value
            elif fields.get("data"):
                found.append((fields.get("id", ""), fields.get("event", ""), json.loads(fields["data"])))
                fields = {}
                if enough is not None and sum(kind == "output" for _, kind, _ in found) >= enough:
                    break
    return found


def test_reader_is_answered_or_cut_but_never_told_the_end_by_a_crash(world: World) -> None:
    """A stream that breaks off is not an end: only ``X-Eof`` is."""
    exec_id = world.session().start("echo first; sleep 1000")
    answers: list[httpx.Response] = []

    def read() -> None:
        with contextlib.suppress(httpx.HTTPError):
            answers.append(
                world.caller.http.get(f"/v1/execs/{exec_id}/output", params={"offset": 6, "wait": 20})
            )

    eventually(lambda: world.caller.look(exec_id)["stdout"]["total_bytes"] == 6, "its first line")
    reader = threading.Thread(target=read)
    reader.start()
    world.restart_gateway()
    reader.join()
    assert all(answer.headers["X-Eof"] == "false" for answer in answers)
    assert world.caller.look(exec_id)["state"] == "running"


def test_gateway_without_a_directory_leaves_nothing(tmp_path: Path) -> None:
    """Nobody could find its commands again, so they go with it, however it goes."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    gateway = GatewayProcess(None, tmp_path / "log", environment={"TMPDIR": str(temporary)})
    caller = Caller(gateway.start())
    try:
        exec_id = caller.session("s").start("setsid sleep 1000 & sleep 1000")
        eventually(lambda: len(carrying(exec_id)) >= 2, "it runs")
    finally:
        gateway.kill()
        caller.close()
    try:
        eventually(lambda: carrying(exec_id) == [], "its commands end")
        eventually(lambda: named(str(temporary)) == [], "its agent ends")
    finally:
        kill_all(carrying(str(temporary)))
