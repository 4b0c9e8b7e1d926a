"""Settings of the test run that pyproject.toml has no words for."""

import asyncio
import socket
from collections.abc import Mapping
from typing import Any

import hypothesis
import pytest

# Hypothesis fails an example that takes longer than 200 ms, which on a busy machine any one may.
# No test here is about wall-clock time; pytest's own timeout ends what hangs.
hypothesis.settings.register_profile("mars", deadline=None)
hypothesis.settings.load_profile("mars")


class ClosesWhatCameTooLate(asyncio.SelectorEventLoop):
    """Closes a connection that was accepted by a server that is closed by now.

    CPython (up to 3.12.7 and 3.13.0, gh-109564) drops such a connection without closing it, and the warning
    that the garbage collector gives fails whichever test happens to run then.
    """

    def _make_socket_transport(
        self, sock: socket.socket, *args: Any, server: Any = None, **kwargs: Any
    ) -> Any:
        if server is not None and server.sockets == ():
            sock.close()
            raise ConnectionAbortedError("the server is closed")
        return super()._make_socket_transport(sock, *args, server=server, **kwargs)  # type: ignore[misc]

    def close(self) -> None:
        """Fails the test that leaves a connection open; the warning comes with the garbage collector, while
        some other test runs."""
        if not self.is_closed():
            self.run_until_complete(asyncio.sleep(0))  # What was aborted last is closed in this round.
        left = [transport for transport in self._transports.values() if not transport.is_closing()]  # type: ignore[attr-defined]
        ends = [transport.get_extra_info("peername") for transport in left]
        for transport in left:
            transport.abort()
        if left:
            self.run_until_complete(asyncio.sleep(0))
        super().close()
        assert not ends, f"left open, with these at the other end: {ends}"


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Any]:
    return {"selector": ClosesWhatCameTooLate}
