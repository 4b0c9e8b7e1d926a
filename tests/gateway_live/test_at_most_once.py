"""The same key runs a command once, whenever and however often it comes."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.gateway_live.caller import Session
from tests.gateway_live.processes import eventually
from tests.gateway_live.redis_process import running_redis
from tests.gateway_live.world import World, open_world


def runs(trace: Path) -> int:
    """How often the command ran: it appends a line each time."""
    return len(trace.read_text().splitlines()) if trace.exists() else 0


@pytest.fixture(params=["memory", "redis"])
def kept(request: pytest.FixtureRequest, place: str) -> Iterator[World]:
    """A world whose gateway keeps its records in either store."""
    if request.param == "memory":
        with open_world(place) as world:
            yield world
    else:
        with running_redis() as url, open_world(place, "--store", url) as world:
            yield world


def test_duplicate_in_flight_joins(shared: World) -> None:
    session, trace, goon = shared.session(), shared.trace(), shared.trace()
    command = f"echo ran >> {trace}; until [ -e {goon} ]; do sleep 0.02; done; echo once"
    with ThreadPoolExecutor(8) as pool:
        posts = [pool.submit(session.post, command, key=session.name, wait_s=20) for _ in range(8)]
        eventually(lambda: runs(trace) > 0, "it runs")
        goon.touch()
        answers = [post.result().json() for post in posts]
    assert {answer["id"] for answer in answers} == {answers[0]["id"]}
    assert {answer["stdout"]["text"] for answer in answers} == {"once\n"}
    assert runs(trace) == 1


def test_duplicate_after_the_end_gets_the_same_answer(shared: World) -> None:
    session, trace = shared.session(), shared.trace()
    first = session.run(f"echo ran >> {trace}; echo $RANDOM", key=session.name)
    assert session.run(f"echo ran >> {trace}; echo $RANDOM", key=session.name) == first
    assert runs(trace) == 1


def test_key_is_the_callers_and_of_one_body(shared: World) -> None:
    session, trace = shared.session(), shared.trace()
    session.run(f"echo ran >> {trace}", key=session.name)
    other = session.post(f"echo other >> {trace}", key=session.name)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")
    assert runs(trace) == 1


def test_without_a_key_each_request_is_its_own(shared: World) -> None:
    session, trace = shared.session(), shared.trace()
    ids = {session.run(f"echo ran >> {trace}")["id"] for _ in range(3)}
    assert (len(ids), runs(trace)) == (3, 3)


def test_duplicate_after_a_crash_joins(kept: World) -> None:
    """The client saw its connection break and sends again, to a gateway that has just been started."""
    session, trace, goon = kept.session(), kept.trace(), kept.trace()
    command = f"echo ran >> {trace}; until [ -e {goon} ]; do sleep 0.02; done; echo once"
    exec_id = session.start(command, key="same")
    eventually(lambda: runs(trace) > 0, "it runs")
    kept.restart_gateway()
    assert session.start(command, key="same") == exec_id
    goon.touch()
    answer = kept.caller.ended(exec_id)
    assert (answer["state"], answer["exit_code"], answer["stdout"]["text"]) == ("exited", 0, "once\n")
    assert runs(trace) == 1


def test_duplicate_after_the_end_and_a_crash_gets_the_same_answer(kept: World) -> None:
    session, trace = kept.session(), kept.trace()
    first = session.run(f"echo ran >> {trace}; echo $RANDOM", key="same")
    kept.restart_gateway()
    again = session.run(f"echo ran >> {trace}; echo $RANDOM", key="same")
    same = ("id", "state", "exit_code", "stdout", "stderr")
    assert {name: again[name] for name in same} == {name: first[name] for name in same}
    assert runs(trace) == 1


def test_crash_between_claim_and_start_runs_it_once_or_never(kept: World) -> None:
    """Gateways killed at any moment after the request: the same key always leads to one run."""
    session = kept.session()
    for number in range(2):
        trace = kept.trace()
        command = f"echo ran >> {trace}; echo {number}"
        with ThreadPoolExecutor(1) as pool:
            post = pool.submit(_try_post, session, command, f"key-{number}")
            kept.gateway.kill()
            post.result()
        kept.start_gateway()
        answer = session.run(command, key=f"key-{number}")
        assert (answer["state"], answer["stdout"]["text"]) == ("exited", f"{number}\n"), answer
        assert runs(trace) == 1


def _try_post(session: Session, command: str, key: str) -> None:
    with contextlib.suppress(httpx.HTTPError):
        session.post(command, key=key)


def test_reboot_is_lost_and_not_run_again(world: World) -> None:
    session, trace = world.session(), world.trace()
    command = f"echo ran >> {trace}; echo begun; sleep 1000"
    exec_id = session.start(command, key="same")
    eventually(lambda: runs(trace) > 0, "it runs")
    world.reboot_host()
    answer = world.caller.ended(exec_id)
    assert (answer["state"], answer["exit_code"]) == ("lost", None)
    assert answer["reason"]
    assert session.start(command, key="same") == exec_id
    assert world.caller.ended(exec_id)["state"] == "lost"
    assert runs(trace) == 1
    assert session.stdout("echo the host is of use again") == "the host is of use again\n"


def test_agent_killed_is_lost_and_leaves_no_orphan(world: World) -> None:
    """Its commands live on without it; nobody would ever end them or read their exit codes."""
    session, trace = world.session(), world.trace()
    exec_id = session.start(f"setsid sleep 1000 & echo ran >> {trace}; sleep 1000", key="same")
    eventually(lambda: runs(trace) > 0, "it runs")
    world.kill_agent()
    answer = world.caller.ended(exec_id)
    assert (answer["state"], answer["exit_code"]) == ("lost", None)
    assert session.stdout("echo next") == "next\n"
    eventually(lambda: world.commands() == [], "what the dead agent left is ended")
    assert runs(trace) == 1
