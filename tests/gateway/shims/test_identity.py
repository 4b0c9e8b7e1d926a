"""Names of sessions: given, taken from the framework, or of the agent's process."""

import os
import subprocess
import sys

from gateway.shims.identity import agent_process, labels, session_name

ME = os.getpid()


def test_given_name_wins() -> None:
    environ = {"MARS_GATEWAY_SESSION": "fix-1", "CODEX_THREAD_ID": "t"}
    assert session_name(environ, ME) == "fix-1"


def test_ids_of_frameworks() -> None:
    assert session_name({"CODEX_THREAD_ID": "t-1"}, ME) == "codex-t-1"
    environ = {"CLAUDE_CODE_SESSION_ID": "c-1"}
    assert session_name(environ, ME) == "claude-c-1"
    assert labels(environ) == {}, "the id is not the proxy's"
    assert labels({"CODEX_TOOL_CALL_ID": "call", "MARS_LLM_SESSION": "mine", "CODEX_THREAD_ID": "t"}) == {
        "llm_session": "mine",
        "tool_call_id": "call",
    }
    assert labels({}) == {}


def test_names_that_the_gateway_would_not_take_stay_different() -> None:
    names = {
        session_name({"MARS_GATEWAY_SESSION": each}, ME) for each in ("a b", "a/b", "a-b", ".", "x" * 200)
    }
    assert len(names) == 5
    assert all(len(each) <= 128 and not each.startswith(".") and set(each).isdisjoint(" /") for each in names)


def agent_of_a_command(shell: str) -> str:
    script = "import os; from gateway.shims.identity import agent_process; print(agent_process(os.getppid()))"
    command = f"{sys.executable} -c '{script}'; true"
    return subprocess.run([shell, "-c", command], capture_output=True, text=True, check=True).stdout.strip()


def test_agent_is_the_same_through_shells_between() -> None:
    ours = agent_process(ME)
    assert ours.split("-")[0] == str(ME)
    assert agent_of_a_command("bash") == agent_of_a_command("sh") == ours


def test_two_agents_are_two() -> None:
    with subprocess.Popen(["sleep", "1000"]) as other:
        try:
            assert session_name({}, other.pid) != session_name({}, ME)
        finally:
            other.kill()


def test_shells_that_stay_are_agents_of_their_own() -> None:
    """Unless somebody says whose they are."""
    first, second = (session_name({}, ME, shell_pid=each) for each in (7, 8))
    assert first != second
    given = {"MARS_GATEWAY_SESSION": "fix-1"}
    assert session_name(given, ME, shell_pid=7) == session_name(given, ME, shell_pid=8)


def test_process_that_is_gone_still_has_a_name() -> None:
    assert agent_process(2**22 + 1) == str(2**22 + 1)
