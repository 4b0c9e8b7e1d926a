"""The soak, short: see ``tests/bench/gateway_soak.py`` for the long one."""

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
    assert books["commands"] > 100
    assert len(books["faults"]) >= 4
