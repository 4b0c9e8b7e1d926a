"""The table of shells: what it may forget, and what it then finds again."""

import asyncio

import httpx
import pytest
from fastapi import FastAPI

from gateway.compat.swerex_routes import swerex_routes
from gateway.compat.swerex_shells import Runtimes, Shell
from gateway.protocol import SessionRequest
from gateway.session_record import Session
from tests.gateway.compat.swerex_calls import Swerex, action


def session(name: str) -> Session:
    return Session("", name, "here", name, "/w", SessionRequest(), 0.0, 0.0)


def test_a_session_that_was_made_anew_has_no_shells() -> None:
    runtimes = Runtimes()
    first = session("s")
    runtime = runtimes.of(first)
    runtime.shells["default"] = Shell("default", None)
    assert runtimes.of(first) is runtime
    assert runtimes.of(session("s")).shells == {}
    runtimes.forget(runtime)  # Which is another one by now.
    assert len(runtimes) == 1


async def test_the_oldest_that_are_idle_are_forgotten() -> None:
    runtimes = Runtimes(max_runtimes=2)
    busy = runtimes.of(first := session("busy"))
    busy.shells["default"] = Shell("default", None)
    async with busy.shells["default"].at_rest():
        for name in ("a", "b", "c"):
            runtimes.of(session(name))
        assert runtimes.of(first) is busy
        assert len(runtimes) == 2


@pytest.mark.slow  # real processes
async def test_a_shell_that_was_forgotten_is_found_in_its_workspace(swerex: Swerex) -> None:
    await swerex.ask("create_session")
    await swerex.run("N=1; cd /usr")
    app = FastAPI()
    app.state.gateway = swerex.rig.gateway
    app.include_router(swerex_routes(Runtimes()))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http:
        url = f"/compat/swerex/{swerex.session}"
        answer = await http.post(f"{url}/run_in_session", json=action("echo $N; pwd"))
        assert answer.json()["output"] == "1\n/usr\n"
        again = await http.post(f"{url}/create_session", json={})
        assert again.json()["swerexception"]["class_path"] == "swerex.exceptions.SessionExistsError"


@pytest.mark.slow  # real processes
async def test_a_request_that_is_given_up_leaves_its_shell_in_order(swerex: Swerex) -> None:
    """Its command goes on, and the next one waits for it."""
    await swerex.ask("create_session")
    async with asyncio.TaskGroup() as group:
        left = group.create_task(swerex.run("touch /tmp/begun; sleep 0.5; N=1"))
        waiting = "until [ -e /tmp/begun ]; do sleep 0.02; done"
        await swerex.ask("execute", command=waiting, shell=True, timeout=20)
        left.cancel()
    assert (await swerex.run("echo $N"))["output"] == "1\n"
