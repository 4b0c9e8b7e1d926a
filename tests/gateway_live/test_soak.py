"""The soak, short: see ``tests/bench/gateway_soak.py`` for the long one."""

import subprocess

import pytest

from tests.gateway_live.redis_process import running_redis
from tests.gateway_live.soak import Soak
from tests.gateway_live.world import open_world


@pytest.mark.timeout(400)
def test_a_minute_in_which_everything_breaks() -> None:
    with running_redis() as url, open_world("ssh", "--store", url, workers=3) as world:
        soak = Soak(world, seed=1)
        soak.run(60)
        books = soak.audit()
    assert books["violations"] == []
    assert books["unaccounted"] == books["executed_twice"] == books["orphans"] == 0
    assert books["commands"] > 50
    assert len(books["faults"]) >= 3


@pytest.mark.timeout(400)
def test_its_audit_finds_what_is_wrong() -> None:
    """Books that are never wrong prove nothing."""
    with open_world("ssh") as world:
        soak = Soak(world, seed=2, settle_s=2)
        soak.run(1)
        entry = next(each for each in soak.entries if each.kind.name != "cancelled")
        with soak.ran(world.host).open("a") as ran:
            ran.write(f"{entry.key}\n")
        assert entry.answer is not None
        entry.answer["exit_code"] = 99
        entry.output_digest = None
        marked = {"MARS_EXEC_ID": "ex-nobodys", "HOME": str(world.directory)}
        with subprocess.Popen(["sleep", "1000"], env=marked) as orphan:
            books = soak.audit()
            orphan.kill()
    assert (books["executed_twice"], books["orphans"]) == (1, 1)
    texts = " | ".join(books["violations"])
    assert f"{entry.key}: ran 2 times" in texts
    assert f"expected {entry.kind.state} with" in texts
    assert "of ex-nobodys: sleep" in texts
