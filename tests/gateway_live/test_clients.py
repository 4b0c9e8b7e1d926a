"""Clients that leave, stall or lie: a command goes on without them, a lease does not."""

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

from tests.gateway_live.gateway_process import ROOT
from tests.gateway_live.processes import carrying, eventually, open_descriptors
from tests.gateway_live.world import World


@contextlib.contextmanager
def leaving_without_a_word(world: World, session: str, command: str) -> Iterator[None]:
    """Asks, and resets the connection at the end. What the gateway had not read by then is lost."""
    address = urlsplit(world.gateway.url)
    body = json.dumps({"command": command}).encode()
    head = f"POST /v1/sessions/{session}/execs?wait=30 HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((address.hostname, address.port)) as client:
        client.sendall(head.encode() + body)
        yield
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def active(world: World, session: str) -> int:
    count = world.caller.http.get(f"/v1/sessions/{session}").json()["execs_active"]
    assert isinstance(count, int)
    return count


def test_client_gone_without_a_word(shared: World) -> None:
    session, trace, goon = shared.session(), shared.trace(), shared.trace()
    command = f"echo up > {trace}; until [ -e {goon} ]; do sleep 0.02; done; echo end > {trace}"
    with leaving_without_a_word(shared, session.name, command):
        eventually(trace.exists, "it runs")
    goon.touch()
    eventually(lambda: trace.read_text() == "end\n", "it ends by itself")
    eventually(lambda: active(shared, session.name) == 0, "the gateway knows")


def test_hundred_clients_gone_leave_no_descriptors(shared: World) -> None:
    session = shared.session()
    session.stdout("true")
    before = open_descriptors(shared.gateway.pid)
    for _ in range(100):
        with leaving_without_a_word(shared, session.name, "true"):
            pass
    eventually(lambda: active(shared, session.name) == 0, "all are over")
    eventually(lambda: open_descriptors(shared.gateway.pid) <= before + 5, "descriptors are given back")


def client_program(world: World, *arguments: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "gateway", "exec", "--gateway", world.gateway.url, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
    )


def test_client_program_interrupted_ends_its_command(shared: World) -> None:
    session = shared.session()
    command = "echo $MARS_EXEC_ID; setsid sleep 1000 & sleep 1000"
    with client_program(shared, "--session", session.name, "--", "bash", "-c", command) as client:
        assert client.stdout is not None
        exec_id = client.stdout.readline().decode().strip()
        assert carrying(exec_id) != []
        client.send_signal(signal.SIGINT)
        assert client.wait(30) == 130
    eventually(lambda: carrying(exec_id) == [], "its command ends")


def test_client_program_killed_ends_its_command_if_that_was_asked_for(shared: World) -> None:
    """SIGKILL leaves no time for a word: the gateway misses its heartbeats."""
    session = shared.session()
    options = ["--cancel-on-disconnect", "--session", session.name]
    command = "echo $MARS_EXEC_ID; setsid sleep 1000 & sleep 1000"
    with client_program(shared, *options, "--", "bash", "-c", command) as client:
        assert client.stdout is not None
        exec_id = client.stdout.readline().decode().strip()
        client.kill()
    eventually(lambda: carrying(exec_id) == [], "its command ends")
    assert shared.caller.ended(exec_id)["state"] == "cancelled"


def test_client_program_hands_input_and_exit_code_through(shared: World) -> None:
    session = shared.session()
    with client_program(
        shared, "--stdin", "--session", session.name, "--", "bash", "-c", "sort; exit 5"
    ) as client:
        out, _ = client.communicate(b"b\na\n", timeout=30)
        assert (out, client.returncode) == (b"a\nb\n", 5)


def test_lease_of_a_client_that_died_ends(shared: World) -> None:
    """There is no signal from a shim that was killed; its heartbeats stop."""
    http = shared.caller.http
    before = shared.caller.hosts()[shared.host]["slots_used"]
    body = {"session": "shim", "host": shared.host, "cpu": 1, "ttl_s": 0.5}
    response = http.post("/v1/leases", json=body)
    assert response.status_code in (200, 201), response.text
    lease = response.json()
    assert lease["state"] == "held"
    assert shared.caller.hosts()[shared.host]["slots_used"] == before + 1
    eventually(lambda: shared.caller.hosts()[shared.host]["slots_used"] == before, "its slot is free")
    with contextlib.suppress(KeyError):
        assert http.put(f"/v1/leases/{lease['id']}", json={}).json()["state"] == "expired"


def test_stdin_may_be_sent_twice(shared: World) -> None:
    """A retry after a broken connection writes nothing twice: the offset says where it belongs."""
    exec_id = shared.session().start("cat", stdin_open=True)
    url = f"/v1/execs/{exec_id}/stdin"
    first = {"data_b64": "b25lCg==", "offset": 0}
    assert shared.caller.http.post(url, json=first).json() == {"next_offset": 4}
    assert shared.caller.http.post(url, json=first).json() == {"next_offset": 4}
    last = {"data_b64": "dHdvCg==", "offset": 4, "eof": True}
    assert shared.caller.http.post(url, json=last).json() == {"next_offset": 8}
    answer = shared.caller.ended(exec_id)
    assert (answer["exit_code"], answer["stdout"]["text"]) == (0, "one\ntwo\n")
