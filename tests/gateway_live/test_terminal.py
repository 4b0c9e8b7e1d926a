"""A terminal over a WebSocket: what was missed is replayed, and one client at a time writes."""

import contextlib
import json
import random
import socket
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.gateway_live.caller import Session
from tests.gateway_live.processes import HANG_S, carrying, eventually, named
from tests.gateway_live.world import World

HELD, TAKEN = 4009, 4001


class Terminal:
    """One client of a session's terminal, and what it has seen."""

    def __init__(self, world: World, session: Session, **query: int) -> None:
        url = world.gateway.url.replace("http://", "ws://")
        text = "&".join(f"{name}={value}" for name, value in query.items())
        url = f"{url}/v1/sessions/{session.name}/pty?{text}"
        self._closing = contextlib.ExitStack()
        self.socket: ClientConnection = self._closing.enter_context(connect(url, proxy=None, close_timeout=1))
        self.seen = b""
        self.news: list[dict[str, Any]] = []

    def until(self, text: bytes) -> None:
        while text not in self.seen:
            self.take()

    def take(self) -> None:
        message = self.socket.recv(HANG_S)
        if isinstance(message, bytes):
            self.seen += message
        else:
            self.news.append(json.loads(message))

    def type(self, text: str) -> None:
        self.socket.send(text.encode())

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def break_off(self) -> None:
        """The client is gone without a word."""
        self.socket.socket.shutdown(socket.SHUT_RDWR)

    def closed_with(self) -> int:
        with contextlib.suppress(ConnectionClosed):
            while True:
                self.take()
        assert self.socket.close_code is not None
        return self.socket.close_code


def test_what_was_missed_is_replayed(shared: World) -> None:
    session, goon = shared.session(), shared.trace()
    with Terminal(shared, session) as first:
        first.type(f"echo a$((40+2))b; until [ -e {goon} ]; do sleep 0.02; done; echo c$((6*7))d\n")
        first.until(b"a42b")
        first.break_off()
    goon.touch()
    with Terminal(shared, session, since=0, takeover=1) as second:
        second.until(b"c42d")
        assert second.seen.startswith(first.seen)
        second.type("echo e$((2*21))f\n")
        second.until(b"e42f")
    with Terminal(shared, session, since=len(second.seen), takeover=1) as third:
        third.type("echo g$((84/2))h\n")
        third.until(b"g42h")
        third.type("exit\n")
    assert b"e42f" not in third.seen


def test_it_is_a_terminal_of_the_size_asked_for(shared: World) -> None:
    session = shared.session()
    with Terminal(shared, session, cols=101, rows=33) as terminal:
        terminal.type("test -t 0 -a -t 1 && echo is-$((1))-tty; stty size\n")
        terminal.until(b"is-1-tty")
        terminal.until(b"33 101")
        terminal.socket.send(json.dumps({"resize": {"cols": 77, "rows": 22}}))
        terminal.type("sleep 0.1; stty size\n")
        terminal.until(b"22 77")
        terminal.type("exit\n")


def test_interrupt_reaches_what_runs_in_front(shared: World) -> None:
    session = shared.session()
    with Terminal(shared, session) as terminal:
        seconds = f"1000.{random.randrange(10**6):06}"
        terminal.type(f"sleep {seconds}; echo interrupted-$((1))\n")
        eventually(lambda: named("sleep", seconds), "it runs in front")
        terminal.type("\x03")
        terminal.type("echo free-$((1))\n")
        terminal.until(b"free-1")
        terminal.type("exit\n")


def test_second_client_waits_or_takes_over(shared: World) -> None:
    session = shared.session()
    with Terminal(shared, session) as first:
        first.type("echo first-$((1))\n")
        first.until(b"first-1")
        with Terminal(shared, session) as second:
            assert second.closed_with() == HELD
        with Terminal(shared, session, takeover=1) as taker:
            assert first.closed_with() == TAKEN
            taker.type("echo taken-$((1))\n")
            taker.until(b"taken-1")
            taker.type("exit\n")


def test_shell_ends_with_its_session(shared: World) -> None:
    session = shared.session()
    with Terminal(shared, session) as terminal:
        terminal.type("echo id=$MARS_EXEC_ID=; setsid sleep 1000 &\n")
        terminal.until(b"id=ex-")
        terminal.until(b"=\r\n")
        exec_id = terminal.seen.rpartition(b"id=ex-")[2].partition(b"=")[0].decode()
        assert carrying(exec_id) != []
        session.delete()
        eventually(lambda: carrying(exec_id) == [], "the shell and what it started are gone")
