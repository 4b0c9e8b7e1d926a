"""One command that the gateway runs, followed here as if this process were it.

Owns what goes on while it runs: its output comes here, our input and signals go there, its end is our end. It
must not know why it is run. A *vigil* says every few seconds that we are there; if we are killed it cancels
the command at once, and if it is killed as well the gateway does so after ``HEARTBEAT_TTL_S``.

A connection that breaks is made again, behind the last event that was seen. How a command ended is told by
the gateway or not at all: nothing here makes an exit code up.
"""

from __future__ import annotations

import base64
import os
import select
import signal
import time
from collections.abc import Callable

from gateway.shims import vigil
from gateway.shims.calls import Answer, Calls, GatewayFault, Refused, Unreachable
from gateway.shims.event_stream import Event, EventStream

TYPE_CHECKING = False
if TYPE_CHECKING:  # Importing typing would take longer than most calls.
    from typing import TypeVar

    T = TypeVar("T")

HEARTBEAT_TTL_S = 10.0
_BEAT_S = 3.0
"""Three times in that: two may get lost."""
_PATIENCE_S = 30.0
"""For a gateway that is restarted, or says that it is busy."""
_LONGEST_PAUSE_S = 3.0
_STDIN_BYTES = 64 << 10
_STDIN_PAUSE_S = 0.05
"""Before input is offered again to a command that took only a part of it."""
_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_ENDING_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)


class ReaderLeft(Exception):
    """Nobody reads our output any more."""


class RemoteRun:
    """Use once."""

    def __init__(self, calls: Calls, *, input_fd: int | None, has_terminal: bool = False) -> None:
        """``input_fd``: what the command reads, None: it has no input. ``has_terminal``: it runs on one."""
        self._has_terminal = has_terminal
        self._calls = calls
        self._input_fd = input_fd
        self._exec_id: str | None = None
        self._signals: list[int] = []
        self._is_started = False
        self._pending = b""
        self._offset = 0
        self._has_ended_input = input_fd is None

    def run(self, path: str, request: dict[str, object], settle: Callable[[], None]) -> dict[str, object]:
        """Its last status. ``path`` of the session; ``settle`` makes it if it is not there. Raises
        GatewayFault, ReaderLeft."""
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda each, _: self._on_signal(each))
        request = {**request, "heartbeat_ttl_s": HEARTBEAT_TTL_S}  # Should we be killed before the first one.
        self._exec_id = start(self._calls, path, request, settle)
        keeper = vigil.keep(self._duty())
        restore = self._take_terminal()
        try:
            for early in self._signals:
                self._pass_on(early)
            return self._followed()
        except (ReaderLeft, Unreachable):
            self.cancel()
            raise
        finally:
            restore()
            keeper.end(b"over")

    def _take_terminal(self) -> Callable[[], None]:
        """Keys go there as they are, and sizes, if our input is a terminal. Returns what undoes it."""
        fd = self._input_fd
        if not self._has_terminal or fd is None or not os.isatty(fd):
            return lambda: None
        from gateway.shims import own_terminal

        def resize(*_: object) -> None:
            cols, rows = own_terminal.size(fd)
            if cols and rows:
                self._try("PUT", "/tty", {"cols": cols, "rows": rows})

        signal.signal(signal.SIGWINCH, resize)
        mode = own_terminal.set_raw(fd)
        return lambda: own_terminal.restore(fd, mode)

    def cancel(self) -> None:
        self._try("DELETE", "")

    def _duty(self) -> vigil.Duty:
        return vigil.Duty(
            period_s=_BEAT_S,
            renew=self._beat,
            farewell=lambda _: None,
            abandoned=self.cancel,
            begins_at_once=True,
        )

    def _beat(self) -> None:
        self._try("PUT", "/heartbeat", {"ttl_s": HEARTBEAT_TTL_S})

    def _followed(self) -> dict[str, object]:
        stream = EventStream(self._open(None))
        while True:
            for event in stream.ready():
                if (status := self._take(event)) is not None:
                    stream.close()
                    return status
            if stream.is_over:
                stream.close()
                stream = EventStream(self._open(stream.last_id))
            else:
                self._wait(stream)

    def _open(self, last_id: str | None) -> Answer:
        headers = {} if last_id is None else {"Last-Event-ID": last_id}
        path = f"/v1/execs/{self._exec_id}/events"
        return patiently(lambda: self._calls.open("GET", path, headers=headers))

    def _wait(self, stream: EventStream) -> None:
        """Until there is something to do; input is offered meanwhile."""
        ready = select.poll()
        ready.register(stream, select.POLLIN)
        is_hungry = self._is_started and not self._has_ended_input
        if is_hungry and not self._pending and self._input_fd is not None:
            ready.register(self._input_fd, select.POLLIN)
        found = dict(ready.poll(_STDIN_PAUSE_S * 1000 if self._pending else None))
        if self._input_fd in found:
            self._read_input(self._input_fd)
        if self._pending:
            self._offer()

    def _take(self, event: Event) -> dict[str, object] | None:
        """The status, if it was the last one."""
        name, data = event
        if name == "started":
            self._is_started = True
        elif name == "output":
            self._is_started = True
            _write(2 if data.get("stream") == "stderr" else 1, _bytes_of(data))
        elif name == "output_lost":
            _write(2, f"gateway: output is lost from here on: {data.get('reason')}\n".encode())
        elif name == "exit":
            status = data["status"]
            assert isinstance(status, dict)
            return status
        return None

    def _read_input(self, fd: int) -> None:
        try:
            self._pending = os.read(fd, _STDIN_BYTES)
        except BlockingIOError:
            return
        except OSError:  # Such as a terminal that hung up.
            self._pending = b""
        if not self._pending:
            self._has_ended_input = True
            self._try("POST", "/stdin", {"offset": self._offset, "eof": True})

    def _offer(self) -> None:
        body = {"data_b64": base64.b64encode(self._pending).decode(), "offset": self._offset}
        try:
            taken = self._calls.json("POST", f"/v1/execs/{self._exec_id}/stdin", body).get("next_offset")
        except Refused as refused:
            if refused.status != 503:  # It is over, or has closed its input.
                self._has_ended_input, self._pending = True, b""
            return
        except Unreachable:
            return
        assert isinstance(taken, int)
        self._pending = self._pending[taken - self._offset :]
        self._offset = taken

    def _on_signal(self, number: int) -> None:
        self._signals.append(number)
        if self._exec_id is not None:
            self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        """The first of a kind is the command's; a second one, or one before it began, ends it."""
        is_first = self._signals.count(number) == 1 or number not in _ENDING_SIGNALS
        body = {"signal": signal.Signals(number).name}
        if not (is_first and self._try("POST", "/signal", body)) and number in _ENDING_SIGNALS:
            self.cancel()

    def _try(self, method: str, what: str, body: object = None) -> bool:
        try:
            self._calls.json(method, f"/v1/execs/{self._exec_id}{what}", body)
        except GatewayFault:
            return False
        return True


def start(calls: Calls, path: str, request: dict[str, object], settle: Callable[[], None]) -> str:
    """The id of the command. It is not started twice, however often it has to be asked for."""
    key = os.urandom(16).hex()

    def ask() -> dict[str, object]:
        try:
            return calls.json("POST", f"{path}/execs", request, key=key)
        except Refused as refused:
            if refused.code != "session_not_found":
                raise
        settle()
        return calls.json("POST", f"{path}/execs", request, key=key)

    return str(patiently(ask, gives_up_at_once=True)["id"])


def patiently(call: Callable[[], T], *, gives_up_at_once: bool = False) -> T:
    """What is safe to send again, sent again while the gateway is not there or says that it cannot now."""
    deadline_s = time.monotonic() + _PATIENCE_S
    pause_s = 0.1
    while True:
        try:
            return call()
        except Unreachable:
            if gives_up_at_once or time.monotonic() + pause_s > deadline_s:
                raise
        except Refused as refused:
            pause_s = max(pause_s, refused.retry_after_s)
            if refused.status not in (429, 503) or time.monotonic() + pause_s > deadline_s:
                raise
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _bytes_of(data: dict[str, object]) -> bytes:
    text, b64 = data.get("text"), data.get("b64")
    return text.encode() if isinstance(text, str) else base64.b64decode(str(b64))


def _write(fd: int, data: bytes) -> None:
    """All of it, also where whoever gave us the descriptor made it non-blocking. Raises ReaderLeft."""
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            select.select([], [fd], [])
        except BrokenPipeError:
            raise ReaderLeft from None
