"""A program's name, and nothing that stood beside it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.tool_signature import MAX_CHARS, command_signature, program_name, signature_parts


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


@pytest.mark.parametrize(
    ("command", "signature"),
    [
        ("ls -la", "ls"),
        ("cd /x && git status && pytest -q 2>&1 | tail -20", "git status + pytest + tail"),
        ("git --no-pager diff HEAD~1", "git diff"),
        ("git hunter2", "git"),
        ("git -c hunter2 status", "git"),
        ("python3 -m pytest -x tests", "python3 pytest"),
        ("python3 -m hunter2", "python3"),
        ("pip3 install x", "pip3 install"),
        ("A='x y' npm test >log 2>/dev/null; ls\nls", "npm test + ls + ls"),
        ("timeout -k 5 60s make -j8", "make"),
        ("nice -n 19 time x", "time"),
        ("sudo -p hunter2 ls", "sudo"),
        ("echo 'a; hunter2 b' \"&& hunter2\" a\\;hunter2 || ls $HOME", "echo + ls"),
        ("ls; ls; ls; ls; ls", "ls + ls + ls + ls + …"),
        ("cat <<'EOF' > a\nmake\nEOF", "cat + …"),
        ("make & ls", "make + …"),
        ("make # ls", "make + …"),
        ("ls && (make)", "ls + …"),
        ("ls && for x in a; do make; done", "ls + …"),
        ("echo ${X} && make", "echo + …"),
        ('grep "$(hunter2)" x', "grep + …"),
        ("for x in a; do make; done", None),
        ("(ls)", None),
        ("", None),
        ("\n", None),
    ],
)
def test_signature_of(command: str, signature: str | None) -> None:
    """All programs, so that a long command is not taken for the short one that it begins with."""
    assert command_signature(command) == signature


def test_signature_has_parts() -> None:
    assert signature_parts("git status + ls") == ["git status", "ls"]


_SHELL_CHARS = "ab=$'`\\(){};&|<> /\n#-"


@given(
    before=st.text(alphabet=_SHELL_CHARS.replace("'", ""), max_size=30),
    after=st.text(_SHELL_CHARS, max_size=30),
)
def test_no_argument_is_in_a_signature(before: str, after: str) -> None:
    """Quoted, whatever it looks like, or in the value of a variable or an option."""
    for command in (f"run '{before} hunter2 {after}", f"KEY=hunter2{after}", f"run --key=hunter2{after}"):
        signature = command_signature(command)
        assert signature is None or "hunter2" not in signature


@pytest.mark.parametrize("text", ["'", '"', "a ", "a;", "\\", "> ", "1>", "=", "A=1 ", '"$', "ls|"], ids=repr)
def test_a_long_command_takes_no_long_time(text: str) -> None:
    """As long as the gateway takes them. The limit of the suite is the bound."""
    command_signature("run " + text * (1 << 16))
    program_name(text * (1 << 16))
