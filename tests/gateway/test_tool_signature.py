"""A program's name, and nothing that stood beside it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.tool_signature import MAX_CHARS, program_name


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("pytest -q tests", "pytest"),
        ("/usr/bin/python3.11 -c 'print(1)'", "python3.11"),
        ("ls", "ls"),
        ("  g++ main.cc", "g++"),
        ("cd /testbed && python -m pytest", "python"),
        ("cd repo; cd src; make", "make"),
        ("TOKEN=hunter2 curl http://x", "curl"),
        ("A='x y' B=\"z w\" C= env", "env"),
        ("cat <<EOF > f\nsecret\nEOF", "cat"),
        ("ls|wc -l", "ls"),
        ("(cd x && y)", None),
        ("$(hunter2)", None),
        ("TOKEN=$(cat hunter2) run", None),
        ("TOKEN=`cat hunter2` run", None),
        ('TOKEN="a\\" hunter2 b" run', None),
        ("TOKEN=a\\ hunter2 run", None),
        ("'hunter2' x", None),
        ('"/opt/my tool" x', None),
        ("KEY=hunter2", None),
        ("cd", "cd"),
        ("", None),
        ("///", None),
        ("x" * (MAX_CHARS + 1), None),
    ],
)
def test_name_of(command: str, name: str | None) -> None:
    """None where it is not plain to see."""
    assert program_name(command) == name


@given(st.text(alphabet="ab=$'\"\\`(){};&|<> /\n", max_size=30))
def test_no_value_of_a_variable_is_taken_for_a_name(rest: str) -> None:
    """Whatever quoting it has: a name never comes from the word that the assignment is in."""
    name = program_name(f"KEY=hunter2{rest}")
    assert name is None or "hunter2" not in name
