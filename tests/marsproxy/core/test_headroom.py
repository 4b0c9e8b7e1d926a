"""What is known of the machines, and when it counts as unknown again."""

import pytest

from marsproxy.core.events import BackendObserved, ToolHostsObserved
from marsproxy.core.headroom import BackendState, ToolHosts
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


def test_a_session_is_charged_and_released_once():
    backend, session = BackendState("gpu"), SessionState("a", "", "family", 0.0, 0.0)
    backend.charge(session)
    assert (session.is_counted, session.backend, list(backend.counted)) == (True, "gpu", ["a"])
    backend.release(session)
    assert (session.is_counted, session.backend, list(backend.counted)) == (False, "gpu", [])


@pytest.mark.parametrize(
    ("running", "queued", "cores", "is_busy"),
    [
        (9, 0, 4.0, False),
        (10, 0, 4.0, True),
        (4, 6, 4.0, True),
        (0, 0, 4.0, False),
        (None, 6, 4.0, False),
        (100, None, 4.0, False),
        (100, 100, None, False),
    ],
)
def test_tool_hosts_are_busy_when_running_and_queued_reach_so_many_per_core(running, queued, cores, is_busy):
    hosts = ToolHosts()
    hosts.observe(ToolHostsObserved(cores=cores, running=running, queued=queued), now=0.0)
    assert hosts.are_busy(10.0, per_core=2.5, stale_s=10.0) is is_busy
    assert not hosts.are_busy(10.1, per_core=2.5, stale_s=10.0)


def test_tool_hosts_never_heard_of_are_not_busy():
    assert not ToolHosts().are_busy(0.0, per_core=2.5, stale_s=10.0)
