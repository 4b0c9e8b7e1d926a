"""A command is over when its leader is, all that it started is over with it, and the answer says how."""

import pytest

from tests.gateway_live.processes import carrying, eventually, zombies_of
from tests.gateway_live.world import World


def test_grandchild_that_holds_the_pipe_delays_nobody(shared: World) -> None:
    """Whoever reads a pipe to its end waits for every process that has it open."""
    answer = shared.session().run("echo done; sleep 1000 &")
    assert (answer["state"], answer["exit_code"], answer["stdout"]["text"]) == ("exited", 0, "done\n")
    assert carrying(answer["id"]) == []


def test_background_child_is_kept_where_that_is_asked_for(shared: World) -> None:
    """Development servers outlive the command that starts them, not the session."""
    session = shared.session()
    answer = session.run("sleep 1000 & echo done", on_exit="keep")
    assert (answer["state"], answer["stdout"]["text"]) == ("exited", "done\n")
    assert len(carrying(answer["id"])) == 1
    session.delete()
    eventually(lambda: carrying(answer["id"]) == [], "the kept child ends with its session")


def test_escapee_by_setsid_is_killed_at_the_end(shared: World) -> None:
    """It is in no process group of ours any more."""
    answer = shared.session().run("setsid -f sleep 1000; setsid -f setsid -f sleep 1000; exit 3")
    assert (answer["state"], answer["exit_code"]) == ("exited", 3)
    assert carrying(answer["id"]) == []


def test_escapee_by_double_fork_without_its_streams_is_killed_at_the_end(shared: World) -> None:
    daemon = "(setsid nohup sleep 1000 </dev/null >/dev/null 2>&1 &) ; sleep 0.2"
    answer = shared.session().run(daemon)
    assert answer["state"] == "exited"
    assert carrying(answer["id"]) == []


def test_what_escapes_and_ends_leaves_no_zombies(shared: World) -> None:
    """Whoever has no parent any more is the agent's to wait for: there may be no init in a container."""
    answer = shared.session().run("for n in 1 2 3 4 5; do setsid -f sleep 0.1; done", on_exit="keep")
    assert answer["state"] == "exited"
    eventually(lambda: carrying(answer["id"]) == [], "they end by themselves")
    eventually(lambda: not any(zombies_of(pid) for pid in shared.agents()), "they are waited for")


def test_timeout_really_stops_the_work(shared: World) -> None:
    """Not only the leader, nor only the waiting."""
    trace = shared.trace()
    work = f"while :; do echo x >> {trace}; sleep 0.02; done"
    answer = shared.session().run(f"({work}) & setsid bash -c '{work}' & wait", timeout_s=0.5)
    assert (answer["state"], answer["exit_code"], answer["timed_out"]) == ("timed_out", 124, True)
    assert carrying(answer["id"]) == []
    written = trace.stat().st_size
    assert written > 0
    shared.session().run("sleep 0.3")
    assert trace.stat().st_size == written


def test_timeout_stops_what_ignores_sigterm(shared: World) -> None:
    answer = shared.session().run(
        "trap '' TERM; echo up; while :; do sleep 0.05; done", timeout_s=0.3, kill_grace_s=0.2
    )
    assert (answer["state"], answer["exit_code"]) == ("timed_out", 124)
    assert answer["stdout"]["text"] == "up\n"
    assert carrying(answer["id"]) == []


def test_timeout_keeps_partial_output(shared: World) -> None:
    answer = shared.session().run("echo begun; echo careful >&2; sleep 1000", timeout_s=0.5)
    assert answer["state"] == "timed_out"
    assert (answer["stdout"]["text"], answer["stderr"]["text"]) == ("begun\n", "careful\n")


def test_late_output_never_appears_in_a_later_answer(shared: World) -> None:
    session = shared.session()
    late = (
        "trap 'sleep 0.2; echo LATE' TERM; echo before; (sleep 0.6; echo LATE) & while :; do sleep 0.05; done"
    )
    first = session.run(late, timeout_s=0.3, kill_grace_s=0.1)
    assert first["state"] == "timed_out"
    answers = [session.stdout(f"sleep 0.4; echo next {number}") for number in range(3)]
    assert answers == ["next 0\n", "next 1\n", "next 2\n"]
    assert shared.caller.output(first["id"]).decode() == first["stdout"]["text"]


def test_cancel_ends_everything_and_again_is_the_same(shared: World) -> None:
    session = shared.session()
    exec_id = session.start("setsid sleep 1000 & sleep 1000 & echo up; sleep 1000", kill_grace_s=0.2)
    eventually(lambda: len(carrying(exec_id)) >= 3, "it runs")
    shared.caller.cancel(exec_id)
    answer = shared.caller.cancel(exec_id, wait_s=20)
    assert (answer["state"], answer["exit_code"], answer["stdout"]["text"]) == ("cancelled", 130, "up\n")
    assert carrying(exec_id) == []
    assert shared.caller.cancel(exec_id)["state"] == "cancelled"


def test_session_takes_its_commands_along(shared: World) -> None:
    session = shared.session()
    exec_id = session.start("setsid sleep 1000 & sleep 1000")
    eventually(lambda: len(carrying(exec_id)) >= 2, "it runs")
    session.delete()
    assert shared.caller.ended(exec_id)["state"] == "cancelled"
    assert carrying(exec_id) == []


@pytest.mark.parametrize(
    ("command", "exit_code", "signal"),
    [
        ("exit 7", 7, None),
        ("kill -SEGV $$", 139, "SIGSEGV"),
        ("kill -KILL $$", 137, "SIGKILL"),
        ("no-such-program", 127, None),
    ],
)
def test_exit_codes_are_the_commands(shared: World, command: str, exit_code: int, signal: str | None) -> None:
    answer = shared.session().run(command)
    assert (answer["state"], answer["exit_code"], answer["signal"]) == ("exited", exit_code, signal)


def test_program_that_is_not_there_is_told(shared: World) -> None:
    answer = shared.session().run(None, argv=["/no/such/program"])
    assert answer["exit_code"] == 127
    assert answer["reason"]


def test_interactive_prompt_gets_the_end_of_input(shared: World) -> None:
    """A question that nobody answers hangs agents for as long as they wait."""
    session = shared.session()
    assert (
        session.stdout("read -p 'Sure? ' answer; echo \"code $? answer '$answer'\"") == "code 1 answer ''\n"
    )
    no_terminal = session.run("head -c 1 /dev/tty")
    assert no_terminal["exit_code"] != 0
    assert session.stdout("python3 -c 'import sys; print(repr(sys.stdin.read()))'") == "''\n"


def test_two_sessions_overlap(shared: World) -> None:
    """Each waits for the other: one after the other would never end."""
    one, other = shared.trace(), shared.trace()

    def meet(mine: object, theirs: object) -> str:
        return f"touch {mine}; until [ -e {theirs} ]; do sleep 0.02; done"

    first = shared.session().start(meet(one, other), cpu=0.1, timeout_s=20)
    second = shared.session().start(meet(other, one), cpu=0.1, timeout_s=20)
    assert [shared.caller.ended(each)["state"] for each in (first, second)] == ["exited", "exited"]


def test_two_commands_of_one_session_overlap(shared: World) -> None:
    """A command that hangs wedges no shell: there is none that others need."""
    session = shared.session()
    hung = session.start("sleep 1000", cpu=0.1)
    assert session.stdout("echo free", cpu=0.1) == "free\n"
    assert shared.caller.look(hung)["state"] == "running"
    shared.caller.cancel(hung, wait_s=20)
