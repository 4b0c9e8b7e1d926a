"""Words of shells, as frameworks and people write them."""

import pytest

from gateway.shims.shell_words import ShellWords, read


def words(*each: str, is_prefix: bool = False, files: tuple[str, ...] = ()) -> ShellWords:
    return read(each, is_prefix=is_prefix, is_file=lambda path: path in files)


@pytest.mark.parametrize(
    ("given", "command"),
    [
        (["-c", "ls"], "ls"),
        (["-lc", "ls"], "ls"),
        (["-l", "-c", "ls"], "ls"),
        (["-c", "-l", "ls"], "ls"),
        (["-ic", "ls"], "ls"),
        (["--norc", "--rcfile", "file", "-c", "ls", "name", "one"], "ls"),
        (["-o", "pipefail", "-c", "ls"], "ls"),
        (["-euo", "pipefail", "-c", "ls"], "ls"),
        (["+x", "-c", "--", "-ls"], "-ls"),
        (["-c"], None),
        (["-i"], None),
        (["-s", "-c"], None),
        ([], None),
    ],
)
def test_command(given: list[str], command: str | None) -> None:
    found = words(*given)
    assert found.command == command
    assert found.words == given


@pytest.mark.parametrize(
    ("given", "reads"),
    [
        ([], True),
        (["-i"], True),
        (["-l"], True),
        (["-s", "a"], True),
        (["script", "a"], False),
        (["-c", "ls"], False),
    ],
)
def test_whether_it_is_told_by_its_input(given: list[str], reads: bool) -> None:
    assert words(*given, files=("script",)).reads_input is reads


def test_single_word_is_a_script_or_else_a_command() -> None:
    assert words("make all").words == ["-c", "make all"]
    assert words("./run", files=("./run",)).words == ["./run"]
    assert words("./run", files=("./run",), is_prefix=True).words == ["-c", "./run"]


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (["-c", "ls"], ["-c", "ls"]),
        (["-l", "-c", "ls"], ["-lc", "ls"]),
        (["--login", "-c", "ls"], ["-lc", "ls"]),
        (["-c", "ls", "name"], ["-c", "ls", "name"]),
        (["-ec", "ls"], ["-ec", "ls"]),
    ],
)
def test_plain_forms_are_those_that_the_gateway_knows(given: list[str], sent: list[str]) -> None:
    assert words(*given).remote_words == sent


def test_questions_about_the_shell() -> None:
    assert words("--version").asks_about_itself
    assert not words("-c", "--version").asks_about_itself
