"""What a scraper sees of a backend's patch."""

import math

import pytest
from prometheus_client import CollectorRegistry

from backend_patch.protocol import KvOp, KvStatus
from marsproxy.core.events import KvReclaimed, LeaseExpired, LeaseResumed
from marsproxy.patch import HeadroomSource, PatchState
from marsproxy.patch_metrics import Dropped, PatchFamilies, PatchMetrics


class Rig:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = PatchMetrics("gpu", PatchFamilies(self.registry))

    def value(self, name: str, **labels: str) -> float:
        value = self.registry.get_sample_value(name, {"backend": "gpu"} | labels)
        assert value is not None
        return value


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_nothing_is_known_at_first(rig: Rig) -> None:
    """Which is not the same as nothing leased."""
    assert rig.value("mars_backend_patch", state="unknown") == 1
    assert rig.value("mars_backend_headroom_source", source="none") == 1
    assert math.isnan(rig.value("mars_backend_leased_tokens"))


def test_one_state_and_one_source_at_a_time(rig: Rig) -> None:
    rig.metrics.set_state(PatchState.WORKING)
    rig.metrics.set_source(HeadroomSource.PATCH)
    states = [rig.value("mars_backend_patch", state=state.value) for state in PatchState]
    sources = [rig.value("mars_backend_headroom_source", source=source.value) for source in HeadroomSource]
    assert (sum(states), sum(sources)) == (1, 1)
    assert rig.value("mars_backend_patch", state="working") == 1
    assert rig.value("mars_backend_headroom_source", source="patch") == 1


@pytest.mark.parametrize("status", [*KvStatus, *Dropped], ids=str)
def test_hints_by_what_became_of_them(rig: Rig, status: KvStatus | Dropped) -> None:
    rig.metrics.hint(KvOp.PIN, status)
    assert rig.value("mars_hints_total", op="pin", status=status.value) == 1


def test_what_leases_were_worth(rig: Rig) -> None:
    """Hits are part of what was leased and resumed."""
    rig.metrics.set_leased_tokens(64)
    rig.metrics.lease_ended(LeaseResumed("s", "gpu", 100, 80))
    rig.metrics.lease_ended(KvReclaimed("s", "gpu", 30))
    rig.metrics.lease_ended(LeaseExpired("s", "gpu", 20))
    rig.metrics.endings_missed(3)
    assert rig.value("mars_backend_leased_tokens") == 64
    assert rig.value("mars_lease_endings_missed_total") == 3
    for how, tokens in {"resumed": 100, "hit": 80, "reclaimed": 30, "expired": 20}.items():
        assert rig.value("mars_lease_tokens_total", how=how) == tokens
        if how != "hit":
            assert rig.value("mars_lease_endings_total", how=how) == 1
