"""What one side writes the other reads."""

from dataclasses import replace

import pytest

from loadgen.agents.crew.orders import Ended, Loaded, Order, read_order, read_report

ORDER = Order("s", "do ü\nthis", "/w", "http://h/s/v1", "key", "m", max_steps=4, timeout_s=5.0)


@pytest.mark.parametrize("order", [ORDER, replace(ORDER, shell="/bin/sh", stream=True)])
def test_an_order_is_one_line_and_comes_back(order: Order) -> None:
    assert order.line().count("\n") == 1
    assert read_order(order.line()) == order


@pytest.mark.parametrize("report", [Loaded("openhands", "1.0"), Ended("s", None), Ended("s", "gave up")])
def test_a_report_comes_back(report: Loaded | Ended) -> None:
    assert read_report(report.line()) == report


@pytest.mark.parametrize("line", ["", "hello", "[]", "7", "{}", '{"event": "else"}', '{"event": "ended"}'])
def test_what_a_framework_prints_is_no_report(line: str) -> None:
    assert read_report(line) is None
