"""One worker: a whole proxy that shares port and state with its siblings.

Run by the supervisor as ``python -m marsproxy.workers.worker FD``, where FD is its end of the socket. It
lives no longer than its parent: the kernel kills it when the parent dies, and so does the socket's end.

Exit codes: 0 it stopped as it was told, 2 the configuration does not fit the backends, 3 the parent is gone
or has given it up.
"""

import asyncio
import ctypes
import logging
import os
import signal
import socket
import sys
from types import FrameType

import uvloop

from marsproxy import metrics_page
from marsproxy.core.settings import ConfigError
from marsproxy.journal import Journal, Replica
from marsproxy.metrics import Metrics
from marsproxy.server import Part, Server, prepare_process
from marsproxy.store.redis_url import MEMORY
from marsproxy.store.seed import group_seed
from marsproxy.workers.assignment import Assignment, receive
from marsproxy.workers.frames import Frame, FrameSocket, Kind
from marsproxy.workers.journal import WorkerJournal
from marsproxy.workers.pages import Pages
from marsproxy.workers.port import bound

log = logging.getLogger(__name__)

EXIT_CONFIGURATION = 2
EXIT_ORPHAN = 3
PR_SET_PDEATHSIG = 1
"""prctl(2)"""


class WorkerServer(Server):
    """Says to the parent that it listens, and stops when that says so."""

    def __init__(self, assignment: Assignment, part: Part, link: "Link") -> None:
        config = assignment.config
        super().__init__(
            config, list(assignment.backend_urls), part, bound(config.listen.host, assignment.port)
        )
        self._link = link
        self.pauses = False

    def listens(self) -> None:
        self._link.socket.send(Frame(Kind.READY))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Ctrl-C reaches all processes of a terminal: the parent's word counts. And a second SIGTERM means
        no more than the first, for a service manager may send one to everybody as well."""
        if sig == signal.SIGTERM:
            self.stop()


class Link:
    """The worker's end of the socket, and who is given what comes."""

    def __init__(self) -> None:
        self.socket = FrameSocket(self._take, self._gone)
        self.journal: WorkerJournal | None = None
        self.pages: Pages | None = None
        self.server: WorkerServer | None = None
        self._is_leaving = False

    def part(self, forms_seed: int) -> Part:
        return Part(self._journal_of, forms_seed, self._page)

    def leave(self) -> None:
        """Everything has been told; what the other side still reads is in its socket."""
        self._is_leaving = True
        if self.pages is not None:
            self.pages.show()
        self.socket.close()

    def _journal_of(self, replica: Replica) -> Journal:
        self.journal = WorkerJournal(replica, self.socket.send)
        return self.journal

    def _page(self, metrics: Metrics) -> metrics_page.SharedPage:
        def own() -> bytes:
            return metrics_page.encode(metrics_page.own_families(metrics))

        self.pages = Pages(own, self.socket.send)
        return metrics_page.SharedPage(metrics, self.pages.gather)

    def _take(self, frames: list[Frame]) -> None:
        assert self.pages is not None
        assert self.server is not None
        for frame in frames:
            match frame.kind:
                case Kind.STOP:
                    self.server.pauses = frame.number == 1
                    self.server.stop()
                case Kind.STOP_NOW:
                    self.server.stop_now()
                case Kind.ASK_PAGE:
                    self.pages.show()
                case Kind.PAGES:
                    self.pages.take(frame)
                case _:
                    assert self.journal is not None, "the parent speaks of records to those who asked it to"
                    self.journal.take(frame)

    def _gone(self) -> None:
        if not self._is_leaving:
            log.error("the parent is gone, or has given this worker up: it ends")
            os._exit(EXIT_ORPHAN)


async def _serve(assignment: Assignment, parent: socket.socket) -> None:
    link, seed = Link(), assignment.forms_seed
    if assignment.config.store.url.reveal() != MEMORY:  # others than our parent's workers have to know it
        seed = await group_seed(assignment.config)
    server = WorkerServer(assignment, link.part(seed), link)
    link.server = server
    await asyncio.get_running_loop().create_unix_connection(lambda: link.socket, sock=parent)
    if link.journal is not None:  # else they share their state through a store
        await link.journal.join()
    await server.serve()
    if link.journal is not None:
        await link.journal.settle()
    link.leave()


def _die_with_parent(parent_pid: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it died before the call
        os._exit(EXIT_ORPHAN)


def main(arguments: list[str]) -> int:
    fd, parent_pid = map(int, arguments)
    _die_with_parent(parent_pid)
    parent = socket.socket(fileno=fd)
    try:
        assignment = receive(parent)
    except EOFError:
        return EXIT_ORPHAN
    prepare_process(assignment.config)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # unless somebody reads files again on it
    try:
        uvloop.run(_serve(assignment, parent))
    except ConfigError as error:
        log.error("%s", error)
        return EXIT_CONFIGURATION
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
