"""From a setting to a command, by way of a real agent: what `/v1/hosts` says is what commands get."""

import os
from typing import Any

import pytest

from gateway.host_agent.isolation import Isolation
from gateway.isolation_settings import isolation_from
from gateway.limits import ConfigError
from tests.gateway.conftest import OpenRig, Rig

FIRST = 1_500_000_000 + os.getpid() * 100
IS_ROOT = os.geteuid() == 0


def test_what_can_be_written() -> None:
    assert isolation_from(None, "none") == Isolation()
    assert isolation_from("200000-265535", "bwrap") == Isolation((200_000, 265_535), "bwrap")
    for wrong in ("", "200000", "200000-", "999-2000", "3000-2000", "2000-2147483648", "2000 - 3000"):
        with pytest.raises(ConfigError, match="session_uids: must be a range"):
            isolation_from(wrong, "none")


async def capabilities(rig: Rig) -> dict[str, Any]:
    found: dict[str, Any] = (await rig.http.get("/v1/hosts")).json()["hosts"][0]["capabilities"]
    return found


@pytest.mark.slow  # a real agent
async def test_without_settings(open_rig: OpenRig) -> None:
    async with open_rig() as rig:
        await rig.session()
        can = await capabilities(rig)
        assert (can["isolates_sessions"], can["sandbox"], can["refuses_commands"]) == (False, "none", None)
        assert (await rig.run("id -u"))["stdout"]["text"] == f"{os.geteuid()}\n"


@pytest.mark.slow  # a real agent
async def test_users(open_rig: OpenRig) -> None:
    async with open_rig(isolation=isolation_from(f"{FIRST}-{FIRST + 9}", "none")) as rig:
        can = await capabilities(rig)
        if not IS_ROOT:
            assert "as root" in can["refuses_commands"]
            refused = await rig.http.put("/v1/sessions/s", json={})
            assert (refused.status_code, "as root" in refused.text) == (503, True)
            return
        assert (can["isolates_sessions"], can["sandbox"], can["refuses_commands"]) == (True, "none", None)
        await rig.session("a")
        await rig.session("b")
        said = [(await rig.run("id -u", session=each))["stdout"]["text"] for each in ("a", "b")]
        assert said == [f"{FIRST}\n", f"{FIRST + 1}\n"]
        assert (await rig.http.put("/v1/sessions/a/files?path=f", content=b"x")).status_code in (
            200,
            201,
            204,
        )
        owner = await rig.run("stat -c %u f; cat f", session="a")
        assert owner["stdout"]["text"] == f"{FIRST}\nx"


@pytest.mark.slow  # a real agent
async def test_a_sandbox(open_rig: OpenRig) -> None:
    async with open_rig(isolation=isolation_from(None, "bwrap")) as rig:
        await rig.session()
        can = await capabilities(rig)
        status = await rig.run("touch /mars-trial; exit 5")
        if can["sandbox"] == "none":
            assert (status["state"], status["exit_code"]) == ("rejected", None)
            assert status["reason"] == can["refuses_commands"]
        else:
            assert (status["state"], status["exit_code"], can["refuses_commands"]) == ("exited", 5, None)
            assert "Read-only file system" in status["stderr"]["text"]
            assert (await rig.run("kill -9 $$"))["signal"] == "SIGKILL"
