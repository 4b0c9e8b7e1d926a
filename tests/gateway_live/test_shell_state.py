"""A session remembers variables and directory between commands, without a shell that could be wedged."""

import pytest

from tests.gateway_live.caller import Session
from tests.gateway_live.world import World


@pytest.fixture
def session(shared: World) -> Session:
    return shared.session()


def said(session: Session, command: str) -> str:
    return session.stdout(command, state="env_cwd")


def test_variables_and_directory_go_on(session: Session) -> None:
    said(session, "mkdir -p deep/er; cd deep/er; export COLOUR='light red' LINES_='a\nb'; local_only=1")
    assert said(session, 'pwd; echo "$COLOUR|$LINES_|$local_only"') == (
        f"{session.workspace}/deep/er\nlight red|a\nb|\n"
    )
    said(session, "unset COLOUR; cd ..")
    assert said(session, 'echo "${COLOUR-unset}"; basename "$PWD"') == "unset\ndeep\n"


def test_other_commands_neither_see_nor_change_it(session: Session) -> None:
    said(session, "mkdir sub; cd sub; export COLOUR=red")
    assert (
        session.stdout('pwd; echo "${COLOUR-unset}"; export COLOUR=blue') == f"{session.workspace}\nunset\n"
    )
    assert said(session, "echo $COLOUR") == "red\n"


@pytest.mark.parametrize(
    "wedge",
    [
        "cat <<END\nnever closed",
        "echo 'an open quote",
        "if true; then",
        "exit 3",
        "exec sleep 0",
        "set -e; false",
        "set -u; echo $not_there",
        "trap 'echo trapped' EXIT DEBUG ERR; false",
        "PS1=; PROMPT_COMMAND='exit 1'; stty -echo; exec 2>&-",
        "kill -9 $$",
        "cd /; rm -rf ~/no-such; export PATH=",
        "read answer; cat",
        "bash -c 'kill -STOP $$'",
    ],
)
def test_no_command_wedges_the_session(session: Session, wedge: str) -> None:
    """What a terminal that is scraped for its prompt does not survive."""
    answer = session.run(wedge, state="env_cwd", timeout_s=2, kill_grace_s=0.1)
    assert answer["state"] in ("exited", "timed_out")
    assert session.run("builtin echo next", state="env_cwd")["stdout"]["text"] == "next\n"
    assert session.stdout("echo plain") == "plain\n"


def test_exit_code_is_the_commands_and_what_it_left_is_kept(session: Session) -> None:
    answer = session.run("export KEPT=yes; exit 7", state="env_cwd")
    assert (answer["state"], answer["exit_code"]) == ("exited", 7)
    assert said(session, "echo $KEPT") == "yes\n"


def test_command_that_is_killed_leaves_the_state_as_it_was(session: Session) -> None:
    """SIGTERM lets a shell tidy up, and so keep what it had; SIGKILL does not."""
    said(session, "export STEP=one")
    answer = session.run("export STEP=two; kill -KILL $$", state="env_cwd")
    assert (answer["state"], answer["signal"]) == ("exited", "SIGKILL")
    assert said(session, "echo $STEP") == "one\n"


def test_output_is_the_commands_alone(session: Session) -> None:
    """No marker, no echo of the command, no carriage returns."""
    answer = session.run("printf 'no newline at the end'; echo err >&2", state="env_cwd")
    assert (answer["stdout"]["text"], answer["stderr"]["text"]) == ("no newline at the end", "err\n")
