"""One command has one text, whichever way it is asked for or run."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marsproxy.core.command_text import command_digest, command_text


@pytest.mark.parametrize(
    "argv",
    [
        ["bash", "-c", "ls | wc"],
        ["bash", "-lc", "ls | wc"],
        ["/bin/bash", "-lc", "ls | wc"],
        ["/usr/bin/env", "bash", "-lc", "ls | wc"],
        ["env", "sh", "-c", "ls | wc"],
        ["bash", "-l", "-c", "ls | wc"],
        ["bash", "-euxc", "ls | wc"],
        ["bash", "-eo", "pipefail", "-c", "ls | wc"],
        ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", "ls | wc"],
        ["zsh", "-ic", "ls | wc"],
    ],
)
def test_what_a_shell_is_given_is_the_command(argv: list[str]):
    assert command_text(argv) == "ls | wc"


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["git", "status"], "git status"),
        (["git", "commit", "-m", "two words"], "git commit -m 'two words'"),
        (["python3", "-c", "print(1)"], "python3 -c 'print(1)'"),
        (["bash", "run.sh"], "bash run.sh"),
        (["bash", "-c"], "bash -c"),
        (["bash", "-x", "run.sh"], "bash -x run.sh"),
        (["bash", "run.sh", "-c", "x"], "bash run.sh -c x"),
        (["bash", "-c", "echo $1", "name", "value"], "bash -c 'echo $1' name value"),
        (["bash", "--rc", "x"], "bash --rc x"),
        (["bash"], "bash"),
        (["env"], "env"),
        ([], ""),
    ],
)
def test_anything_else_is_the_line_that_one_would_type(argv: list[str], text: str):
    """A script that gets parameters is not all of what is run."""
    assert command_text(argv) == text


@given(st.text(min_size=1), st.sampled_from(["bash", "/bin/sh"]), st.sampled_from(["-c", "-lc"]))
def test_every_form_has_the_digest_of_the_text(text: str, shell: str, option: str):
    digest = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    assert command_digest(text) == command_digest([shell, option, text]) == digest
