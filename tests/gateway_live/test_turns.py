"""Who may start: no deadlock between an agent and those it calls, no short command behind long ones."""

import shlex
from collections.abc import Iterator

import pytest

from tests.gateway_live.world import World, open_world

BUILD = "sleep 0"
"""Of which nothing is known, so that a command with it waits like a long one."""

NESTED = """
import json, sys, urllib.request
url, session = sys.argv[1:]
request = urllib.request.Request(
    f"{url}/v1/sessions/{session}/execs?wait=20",
    json.dumps({"command": "echo inner"}).encode(),
    {"Content-Type": "application/json"},
)
print(json.load(urllib.request.urlopen(request))["stdout"]["text"], end="")
"""


@pytest.fixture
def one_slot(place: str) -> Iterator[World]:
    with open_world(place, slots=1) as world:
        yield world


def test_nested_agents_do_not_deadlock(one_slot: World) -> None:
    """The only slot is the parent's, which waits for the child."""
    parent = one_slot.session("parent")
    child = one_slot.session("child", parent="parent")
    nested = f"python3 -c {shlex.quote(NESTED)} {one_slot.gateway.url} {child.name}"
    assert parent.stdout(nested, timeout_s=20) == "inner\n"


def test_agents_three_deep_do_not_deadlock(one_slot: World) -> None:
    one_slot.session("one")
    one_slot.session("two", parent="one")
    one_slot.session("three", parent="two")
    inner = f"python3 -c {shlex.quote(NESTED)} {one_slot.gateway.url} three"
    outer = NESTED.replace('"echo inner"', "sys.argv[3]")
    outer = outer.replace("url, session = sys.argv[1:]", "url, session = sys.argv[1:3]")
    call = f"python3 -c {shlex.quote(outer)} {one_slot.gateway.url} two {shlex.quote(inner)}"
    assert one_slot.session("one").stdout(call, timeout_s=20) == "inner\n"


def test_parallel_commands_of_one_session_do_not_deadlock(one_slot: World) -> None:
    session = one_slot.session()
    ids = [session.start(f"echo {n}") for n in range(5)]
    assert [one_slot.caller.ended(each)["stdout"]["text"] for each in ids] == [f"{n}\n" for n in range(5)]


def test_short_command_does_not_wait_behind_builds(one_slot: World) -> None:
    """What ``ls`` takes is known after the first ones; then it has a lane of its own."""
    session = one_slot.session()
    for _ in range(5):
        session.stdout("ls")
    builds = [one_slot.session().start("sleep 1000; : build") for _ in range(4)]
    assert session.stdout("ls", queue_timeout_s=20) == ""
    states = [one_slot.caller.look(each)["state"] for each in builds]
    assert states.count("running") == 1
    for each in builds:
        one_slot.caller.cancel(each)
    assert {one_slot.caller.ended(each)["state"] for each in builds} == {"cancelled"}


def test_waiting_does_not_count_as_running(one_slot: World) -> None:
    blocker = one_slot.session().start("sleep 1.5")
    answer = one_slot.session().run("sleep 0.1; echo done", timeout_s=1)
    assert one_slot.caller.ended(blocker)["state"] == "exited"
    assert (answer["state"], answer["stdout"]["text"]) == ("exited", "done\n")
    assert answer["queue_s"] > answer["run_s"]


def test_queue_timeout_is_rejected_and_never_runs(one_slot: World) -> None:
    session, trace = one_slot.session(), one_slot.trace()
    blocker = one_slot.session().start("sleep 1000")
    answer = session.run(f"{BUILD}; touch {trace}", queue_timeout_s=0.3)
    assert (answer["state"], answer["exit_code"]) == ("rejected", None)
    assert answer["reason"]
    one_slot.caller.cancel(blocker, wait_s=20)
    session.stdout("true")
    assert not trace.exists()


def test_overload_is_429_before_anything_ran(place: str) -> None:
    with open_world(place, "--queue-limit", "2", slots=1) as world:
        session, trace = world.session(), world.trace()
        ids = [world.session().start("sleep 1000") for _ in range(3)]
        refused = session.post(f"{BUILD}; touch {trace}", key="refused")
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
        assert int(refused.headers["Retry-After"]) >= 1
        for each in ids:
            world.caller.cancel(each)
        for each in ids:
            world.caller.ended(each)
        assert session.run(f"{BUILD}; touch {trace}", key="refused")["state"] == "exited"
        assert trace.exists()


def test_sessions_take_turns(one_slot: World) -> None:
    """One session's crowd does not keep another waiting to its end."""
    crowd, single, trace = one_slot.session(), one_slot.session(), one_slot.trace()
    blocker = crowd.start("sleep 1")
    many = [crowd.start(f"sleep 0.02; echo crowd >> {trace}") for _ in range(10)]
    one = single.start(f"sleep 0.02; echo single >> {trace}")
    for each in (blocker, *many, one):
        assert one_slot.caller.ended(each)["state"] == "exited"
    assert trace.read_text().splitlines().index("single") < 5


def test_drained_host_takes_nothing_new(place: str) -> None:
    with open_world(place) as world:
        session = world.session()
        running = session.start("sleep 0.5; echo end")
        response = world.caller.http.put(f"/v1/hosts/{world.host}/drain", json={"is_draining": True})
        assert response.status_code == 200, response.text
        assert world.caller.hosts()[world.host]["is_draining"]
        assert session.post("true", queue_timeout_s=0.1, wait_s=5).status_code in (200, 503)
        assert world.caller.ended(running)["stdout"]["text"] == "end\n"
        world.caller.http.put(f"/v1/hosts/{world.host}/drain", json={"is_draining": False})
        assert session.stdout("echo again") == "again\n"
