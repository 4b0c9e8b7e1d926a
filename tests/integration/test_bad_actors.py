"""A hostile client beside a calm one: real processes, and whose turns they are stays apart."""

from pathlib import Path

import httpx
import pytest

from marsproxy.tenants.file import tenant_id
from tests.integration.bad_actors import HOSTILE
from tests.integration.calm_tenant import SESSIONS, World, open_world

TURNS = 6
MOST_SLOWER = 4.0
"""The median turn may take so many times what it took alone. Far more than is seen
(docs/results/tenants), for four processes share two cores with whatever else runs."""


async def check_nothing_leaked(world: World, calm_sessions: set[str]) -> None:
    async with httpx.AsyncClient(base_url=world.url, trust_env=False) as admin:
        bad = (await admin.get("/mars/v1/sessions", headers=world.guests.bearer("bad"))).json()
        assert not calm_sessions & {each["id"] for each in bad["sessions"]}
        for session_id in calm_sessions:
            path = f"/mars/v1/sessions/{session_id}"
            assert (await admin.get(path, headers=world.guests.bearer("bad"))).status_code == 404
            assert (await admin.get(path, headers=world.guests.bearer("calm"))).status_code == 200
        page = (await admin.get("/metrics")).text
        tenants = (await admin.get("/mars/v1/tenants")).json()["tenants"]
    for name in ("calm", "bad"):
        assert name not in page
        assert tenant_id(name) not in page
    assert len(page.splitlines()) < 2000
    assert [each["use"]["open_turns"] for each in tenants] == [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("act", sorted(HOSTILE))
async def test_others_go_on_beside_a_bad_actor(act: str, tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        alone = await world.calm(TURNS)
        async with world.beside(act) as answers:
            beside = await world.calm(TURNS)
        assert alone.statuses == beside.statuses == {200}
        assert len(beside.seconds) == TURNS * SESSIONS
        # The ids are the client's own, so both rounds are the same sessions: nobody ended or took one.
        assert alone.sessions == beside.sessions
        assert len(alone.sessions) == SESSIONS
        assert beside.quantile_s(0.5) < MOST_SLOWER * alone.quantile_s(0.5)
        assert sum(answers.values()) > 100, answers
        await check_nothing_leaked(world, alone.sessions)
    log = b"".join(each.read_bytes() for each in (tmp_path / "log").iterdir())
    assert b"TenantsChanged" in log
    for key in world.guests.keys.values():
        assert key.encode() not in log
