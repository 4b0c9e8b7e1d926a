"""What is known of the machines, and when it counts as unknown again."""

from dataclasses import replace

import pytest

from marsproxy.core.events import BackendObserved, ToolHostsObserved
from marsproxy.core.headroom import MAX_TOOL_HOSTS, BackendState, ToolHosts
from marsproxy.core.sessions import SessionState


def test_a_pool_is_unknown_until_it_was_read_and_when_the_reading_is_old():
    backend = BackendState("gpu")
    assert backend.known_pool_tokens(0.0, stale_s=10.0) is None
    backend.observe(BackendObserved("gpu", kv_tokens_total=1_000), now=5.0)
    assert backend.known_pool_tokens(15.0, stale_s=10.0) == 1_000
    assert backend.known_pool_tokens(15.1, stale_s=10.0) is None


def test_a_reading_without_a_pool_size_leaves_the_last_one_standing():
    """The size does not change while a vLLM runs, and zero is not a size."""
    backend = BackendState("gpu")
    backend.observe(BackendObserved("gpu", kv_tokens_total=1_000), now=0.0)
    for total in (None, 0):
        backend.observe(BackendObserved("gpu", kv_tokens_total=total), now=20.0)
        assert backend.known_pool_tokens(20.0, stale_s=10.0) == 1_000


def test_an_unreachable_backend_is_known_again_with_the_next_reading():
    backend = BackendState("gpu")
    backend.observe(BackendObserved("gpu", kv_tokens_total=1_000), now=0.0)
    backend.is_reachable = False
    assert backend.known_pool_tokens(0.0, stale_s=10.0) is None
    backend.observe(BackendObserved("gpu"), now=1.0)
    assert backend.known_pool_tokens(1.0, stale_s=10.0) == 1_000


def test_an_engine_is_believed_about_hints_with_each_reading():
    """It may have been started anew without the patch."""
    backend = BackendState("gpu")
    assert not backend.takes_hints
    backend.observe(BackendObserved("gpu", takes_hints=True), now=0.0)
    assert backend.takes_hints
    backend.observe(BackendObserved("gpu"), now=1.0)
    assert not backend.takes_hints


def test_a_session_is_charged_and_released_once():
    backend, session = BackendState("gpu"), SessionState("a", "", "family", 0.0, 0.0)
    backend.charge(session)
    assert (session.is_counted, session.backend, list(backend.counted)) == (True, "gpu", ["a"])
    backend.release(session)
    assert (session.is_counted, session.backend, list(backend.counted)) == (False, "gpu", [])


# -- tool hosts -----------------------------------------------------------------------------------

KNOWN = ToolHostsObserved(4.0, 3, 1, 500, "one", 1_000, 0.1, 0.2, 0.5)


def hosts_of(*reports: ToolHostsObserved, now: float = 0.0) -> ToolHosts:
    hosts = ToolHosts()
    for report in reports:
        hosts.observe(report, now)
    return hosts


def test_hosts_never_heard_of_are_unknown():
    hosts = ToolHosts()
    assert (hosts.last, hosts.fresh(0.0, stale_s=10.0), hosts.observed_at_s) == (None, None, 0.0)


def test_of_several_hosts_amounts_are_added_and_pressure_is_the_worst():
    hosts = hosts_of(KNOWN, ToolHostsObserved(8.0, 1, 0, 700, "two", 2_000, 0.3, 0.1, 0.2))
    assert hosts.last == ToolHostsObserved(12.0, 4, 1, 1_200, "", 3_000, 0.3, 0.2, 0.5)


def test_the_newest_report_of_a_host_replaces_the_one_before():
    hosts = hosts_of(KNOWN, replace(KNOWN, running=7))
    assert hosts.last == replace(KNOWN, running=7)


@pytest.mark.parametrize("name", ["cores", "running", "queued", "memory_available_mb", "memory_total_mb"])
def test_an_amount_that_one_host_does_not_tell_is_unknown_for_all(name: str):
    """Not zero: the sum of the others would say that there is less than there is."""
    hosts = hosts_of(KNOWN, replace(KNOWN, host="two", **{name: None}))
    assert hosts.last is not None
    assert getattr(hosts.last, name) is None


@pytest.mark.parametrize("name", ["cpu_pressure", "memory_pressure", "queue_wait_s"])
def test_pressure_is_known_when_one_host_tells_it(name: str):
    untold = replace(KNOWN, host="two", **{name: None})
    both = hosts_of(KNOWN, untold).last
    assert both is not None
    assert getattr(both, name) == getattr(KNOWN, name)
    neither = hosts_of(untold, replace(untold, host="three")).last
    assert neither is not None
    assert getattr(neither, name) is None


def test_a_host_that_fell_silent_is_left_out():
    hosts = hosts_of(KNOWN)
    hosts.observe(replace(KNOWN, host="two", running=9), 8.0)
    assert hosts.observed_at_s == 8.0
    assert hosts.fresh(10.1, stale_s=10.0) == replace(KNOWN, host="two", running=9)
    assert hosts.fresh(18.0, stale_s=10.0) is not None
    assert hosts.fresh(18.1, stale_s=10.0) is None


def test_hosts_are_bounded_and_known_ones_are_still_heard():
    hosts = hosts_of(*(replace(KNOWN, host=f"h{n}", running=1) for n in range(MAX_TOOL_HOSTS + 5)))
    assert hosts.last is not None
    assert hosts.last.running == MAX_TOOL_HOSTS
    hosts.observe(replace(KNOWN, host="h0", running=2), 0.0)
    assert hosts.last.running == MAX_TOOL_HOSTS + 1


def test_what_is_said_of_all_hosts_together_counts_only_without_their_names():
    """It is the same once more; a gateway that named them and stopped is believed about all again."""
    hosts = hosts_of(replace(KNOWN, host="", running=9), KNOWN)
    assert hosts.last == KNOWN
    assert hosts.fresh(0.0, stale_s=10.0) == KNOWN
    assert hosts.each(0.0, stale_s=10.0) == [KNOWN]
    hosts.observe(replace(KNOWN, host="", running=8), 20.0)
    assert hosts.fresh(20.0, stale_s=10.0) == replace(KNOWN, host="", running=8)


def test_the_wait_of_a_host_is_its_own_and_else_the_worst():
    hosts = hosts_of(KNOWN, replace(KNOWN, host="two", queue_wait_s=3.0))
    assert [hosts.wait_s(name, 0.0, stale_s=10.0) for name in ("one", "two", "three", None)] == [
        0.5,
        3.0,
        3.0,
        3.0,
    ]
    assert hosts.wait_s("one", 10.1, stale_s=10.0) is None
