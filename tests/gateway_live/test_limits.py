"""What a command may take of its host, and what the host is like for others meanwhile."""

import pytest

from tests.gateway_live.processes import carrying
from tests.gateway_live.world import World, open_world

FORK_BOMB = "bomb() { bomb | bomb & }; bomb; sleep 1000"
MEMORY_HOG = "python3 -c 'hog = [bytes([n % 256]) * 10**6 for n in range(2000)]'"
EAT_MB = 64


def can(world: World, capability: str) -> bool:
    found = world.caller.hosts()[world.host]["capabilities"][capability]
    assert isinstance(found, bool)
    return found


def assert_refused(world: World, command: str, limit: str, value: int) -> None:
    """A host that cannot hold a limit does not run the command without it."""
    trace = world.trace()
    response = world.session().post(f"touch {trace}; {command}", limits={limit: value}, wait_s=20)
    body = response.json()
    assert response.status_code == 400 or (body["state"], body["exit_code"]) == ("rejected", None), body
    assert limit in response.text
    assert not trace.exists()


def test_fork_bomb_within_limits(shared: World) -> None:
    """It gets no further than its limit, others do not feel it, and all of it ends."""
    if not can(shared, "can_limit_pids"):
        assert_refused(shared, FORK_BOMB, "pids", 64)
        return
    session = shared.session()
    bomb = session.start(FORK_BOMB, limits={"pids": 64}, timeout_s=3, kill_grace_s=0.2)
    most = 0
    for number in range(10):
        assert session.stdout(f"echo {number}") == f"{number}\n"
        most = max(most, len(carrying(bomb)))
    answer = shared.caller.ended(bomb)
    assert answer["state"] in ("timed_out", "exited")
    assert 2 <= most <= 64
    assert carrying(bomb) == []


def test_memory_hog_is_killed_and_nobody_else(shared: World) -> None:
    if not can(shared, "can_limit_memory"):
        assert_refused(shared, MEMORY_HOG, "memory_mb", EAT_MB)
        return
    session = shared.session()
    beside = session.start("sleep 1000", cpu=0.1)
    answer = session.run(MEMORY_HOG, limits={"memory_mb": EAT_MB})
    assert (answer["state"], answer["exit_code"], answer["signal"]) == ("oom_killed", 137, "SIGKILL"), answer
    survived = session.run(f"{MEMORY_HOG}; echo $?", limits={"memory_mb": EAT_MB})
    assert (survived["state"], survived["stdout"]["text"]) == ("exited", "137\n"), "its shell was not killed"
    assert carrying(answer["id"]) == []
    assert shared.caller.look(beside)["state"] == "running"
    shared.caller.cancel(beside, wait_s=20)


def test_file_size_limit(shared: World) -> None:
    answer = shared.session().run("head -c 3000000 /dev/zero > big; echo $?", limits={"fsize_mb": 1})
    assert answer["state"] == "exited"
    assert answer["stdout"]["text"] != "0\n"
    answer = shared.session().run("head -c 900000 /dev/zero > small; echo $?", limits={"fsize_mb": 1})
    assert answer["stdout"]["text"] == "0\n"


def test_limits_of_the_session_hold_for_its_commands(shared: World) -> None:
    session = shared.session(limits={"fsize_mb": 1})
    assert session.run("head -c 3000000 /dev/zero > big; echo $?")["stdout"]["text"] != "0\n"


def test_disk_full_in_the_spool(place: str) -> None:
    """Commands go on, what was kept can be read, the loss is told, and the host recovers."""
    with open_world(place, disk_mb=24) as world:
        session = world.session()
        keep = {"max_bytes": 100_000_000}
        full = session.run("head -c 60000000 /dev/zero; echo survived >&2", output=keep)
        assert (full["state"], full["exit_code"]) == ("exited", 0), full
        assert full["stdout"]["total_bytes"] == 60_000_000
        assert full["stdout"]["truncated"]
        assert len(world.caller.output(full["id"])) == full["stdout"]["kept_bytes"] < 60_000_000
        after = session.post("echo after", wait_s=20)
        assert after.status_code in (200, 503, 507), after.text
        if after.status_code == 200:
            assert after.json()["state"] in ("exited", "rejected"), after.text
        assert world.is_up()


@pytest.mark.parametrize("stdin_open", [False, True])
def test_many_commands_at_once(shared: World, stdin_open: bool) -> None:
    """More than there are channels in a connection or slots on the host."""
    session = shared.session()
    ids = [session.start(f"echo {n}; sleep 0.2", cpu=0.05, stdin_open=stdin_open) for n in range(60)]
    for number, each in enumerate(ids):
        answer = shared.caller.ended(each)
        assert (answer["state"], answer["stdout"]["text"]) == ("exited", f"{number}\n"), answer
