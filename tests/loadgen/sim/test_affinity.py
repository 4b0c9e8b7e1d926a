"""Several backends find nearly as much in their caches as one that is as large as all of them."""

from pathlib import Path

import pytest

from loadgen.source import open_workload
from tests.bench.affinity import ALLOWED_LOSS, BACKENDS, PROFILES, Traffic, pair_of, table_of

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("traffic", PROFILES[:2], ids=lambda traffic: traffic.name)
def test_the_hit_ratio_of_three_is_close_to_that_of_one(traffic: Traffic, tmp_path: Path) -> None:
    """Past the knee, where pools are full: what moves or is crowded out at home shows here."""
    workload = open_workload(traffic.name, sessions=90, seed=1)
    pair = pair_of(traffic, workload, "mars", 1.5, 1, tmp_path)
    assert pair.fleet["backends"] == BACKENDS
    assert pair.fleet["completed"] == pair.large["completed"] == 90
    assert pair.lost <= ALLOWED_LOSS, table_of([pair])
