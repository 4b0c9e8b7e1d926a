"""The page about the gateway says what it does: the example runs, the codes are those that are sent."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.stream_protocol import EVENT_NAMES, CloseCode, TerminalQuery
from tests.gateway.test_serve import serving

PAGE = Path("docs/gateway.md").read_text("utf-8")
NOT_HTTP = {(409, "input_not_taken")}
"""Told on a terminal's socket alone."""


def codes_sent() -> set[tuple[int, str]]:
    """The first arguments of each ``Refusal`` in the gateway."""
    found = set()
    for path in Path("gateway").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Refusal":
                status, code = (ast.literal_eval(argument) for argument in node.args[:2])
                found.add((status, code))
    return found


def test_error_codes_are_those_that_are_sent() -> None:
    rows = re.findall(r"^\| (\d{3}) \| (`[^|]+`) \|", PAGE, re.MULTILINE)
    named = {(int(status), code) for status, row in rows for code in re.findall(r"`([a-z_]+)`", row)}
    assert named == codes_sent() - NOT_HTTP


def test_events_terminal_and_close_codes_are_explained() -> None:
    for name in EVENT_NAMES.values():
        assert f"| `{name}` |" in PAGE
    for name in TerminalQuery.__struct_fields__:
        assert f"`{name}" in PAGE
    for name, code in vars(CloseCode).items():
        if not name.startswith("_"):
            assert f"| {code} |" in PAGE


@pytest.mark.slow
def test_the_python_example_runs() -> None:
    example = re.search(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert example is not None
    with serving() as (_, url):
        done = subprocess.run(
            [sys.executable, "-c", example[1]],
            env=os.environ | {"MARS_GATEWAY_URL": url},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "exited 0 1\n2\n3\n\nb'1\\n2\\n3\\n'\n"
