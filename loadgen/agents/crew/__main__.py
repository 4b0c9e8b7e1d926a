"""``python -m loadgen.agents.crew FRAMEWORK``: takes orders and plays each in a thread of its own.

Threads, because one process of a framework costs hundreds of megabytes and seconds of imports, and twenty
agents are to fit on a small machine. Reports go out on the first standard output; what the framework prints
goes to standard error.
"""

import importlib
import os
import sys
import threading
from collections.abc import Callable
from typing import Protocol, TextIO

from loadgen.agents.crew.orders import Ended, Loaded, Order, read_order

MODULES = {"openhands": "openhands_agent", "mini-swe-agent": "mini_swe_agent"}


class Framework(Protocol):
    def version(self) -> str: ...

    def play(self, order: Order) -> str | None:
        """Plays one task to its end; returns why it is not done, None if it is."""


class Crew:
    def __init__(self, play: Callable[[Order], str | None], reports: TextIO) -> None:
        self._play = play
        self._reports = reports
        self._writing = threading.Lock()

    def serve(self, orders: TextIO) -> None:
        agents = []
        for line in orders:
            order = read_order(line)
            agent = threading.Thread(target=self._play_one, args=(order,), name=order.session)
            agent.start()
            agents.append(agent)
        for agent in agents:
            agent.join()

    def report(self, report: Loaded | Ended) -> None:
        with self._writing:
            self._reports.write(report.line())
            self._reports.flush()

    def _play_one(self, order: Order) -> None:
        try:
            error = self._play(order)
        except Exception as exc:  # noqa: BLE001 - the root of the agent's thread
            # The message may hold what a model said; the name of the error does not.
            error = f"{type(exc).__module__}.{type(exc).__name__}"
            if os.environ.get("LOADGEN_AGENTS_DEBUG"):
                sys.excepthook(type(exc), exc, exc.__traceback__)
        self.report(Ended(order.session, error))


def own_output() -> TextIO:
    """Standard output for reports alone: whatever else writes there writes to standard error from now on."""
    reports = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return reports


def main() -> None:
    name = sys.argv[1]
    reports = own_output()
    framework: Framework = importlib.import_module(f"loadgen.agents.crew.{MODULES[name]}")
    crew = Crew(framework.play, reports)
    crew.report(Loaded(name, framework.version()))
    crew.serve(sys.stdin)
    # Threads that a framework left behind are no reason to stay.
    reports.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
