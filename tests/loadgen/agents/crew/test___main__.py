"""Every order is played, whatever becomes of the others."""

import io

from loadgen.agents.crew.__main__ import Crew
from loadgen.agents.crew.orders import Ended, Loaded, Order, read_report


def order(session: str) -> Order:
    return Order(session, "task", "/w", "http://h/v1", "key", "m", max_steps=1, timeout_s=1.0)


def play(order: Order) -> str | None:
    if order.session == "raises":
        raise ValueError("what a model said")
    return "gave up" if order.session == "fails" else None


def test_reports_say_how_each_ended_and_nothing_of_what_was_said() -> None:
    reports = io.StringIO()
    crew = Crew(play, reports)
    crew.report(Loaded("small", "1.0"))
    crew.serve(io.StringIO("".join(order(name).line() for name in ("works", "fails", "raises"))))
    read = [read_report(line) for line in reports.getvalue().splitlines()]
    assert read[0] == Loaded("small", "1.0")
    ended = {report.session: report.error for report in read if isinstance(report, Ended)}
    assert ended == {"works": None, "fails": "gave up", "raises": "builtins.ValueError"}
