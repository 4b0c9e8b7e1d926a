"""200 commands on two cores and 4 GB, with and without admission, in virtual time."""

import pytest

from tests.gateway import admission_sim as sim


@pytest.mark.parametrize("is_warm", [True, False], ids=["warm", "cold"])
def test_short_commands_stay_short_and_memory_stays_within_the_host(is_warm: bool) -> None:
    """Without admission the host kills a seventh of all commands; with slots alone a `ls` takes minutes."""
    without, slots_only = sim.without(0), sim.slots_only(0)
    admitted = sim.admitted(0, is_warm=is_warm)
    assert without.killed > 20
    assert without.peak_mb > sim.MEMORY_MB
    assert sim.percentile(without.short_s, 95) > 2
    assert sim.percentile(slots_only.short_s, 50) > 60
    assert (admitted.killed, admitted.refused) == (0, 0)
    assert admitted.peak_mb < 0.95 * sim.MEMORY_MB
    assert sim.percentile(admitted.short_s, 50) < 0.5
    assert sim.percentile(admitted.short_s, 95) < 1


def test_the_short_lane_costs_the_others_little() -> None:
    with_lane, without_lane = sim.admitted(0), sim.admitted(0, short_places=0)
    assert sum(with_lane.other_s) < 1.1 * sum(without_lane.other_s)
    assert with_lane.until_s < 1.02 * without_lane.until_s


def test_the_same_seed_gives_the_same_outcome() -> None:
    assert sim.admitted(3) == sim.admitted(3)
