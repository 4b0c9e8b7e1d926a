"""Where a session goes, and why."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.placement import Candidate, Placement, place


def host(name: str, **fields: Any) -> Candidate:
    known = {
        "labels": {},
        "is_up": True,
        "is_draining": False,
        "slots": 4,
        "used": 0,
        "queued": 0,
        "sessions": 0,
    }
    return Candidate(name, **{**known, **fields})


def chosen(*hosts: Candidate, **wishes: Any) -> str | None:
    return place(hosts, **{"selector": {}, **wishes}).host


def test_where_there_is_most_room() -> None:
    assert chosen(host("a", used=2), host("b", used=1)) == "b"
    assert chosen(host("a", used=2, slots=16), host("b", used=1)) == "a"
    assert chosen(host("a", queued=2), host("b", used=1)) == "b"


def test_sessions_there_count_though_they_are_idle() -> None:
    assert chosen(host("a", sessions=8), host("b", used=1)) == "b"


def test_the_scarcer_of_cpu_and_memory_counts() -> None:
    """Be it reserved or in use."""
    used = host("used", memory_total_mb=1000, memory_available_mb=100)
    reserved = host("reserved", memory_total_mb=1000, memory_available_mb=1000, memory_reserved_mb=800)
    busy = host("busy", used=2, memory_total_mb=1000, memory_available_mb=900)
    assert chosen(used, reserved, busy) == "busy"
    assert chosen(used, reserved) == "reserved"


def test_unknown_memory_is_neither_full_nor_empty() -> None:
    assert chosen(host("a", used=1), host("b", memory_total_mb=1000, memory_available_mb=300)) == "a"


def test_of_equals_the_first() -> None:
    assert chosen(host("b"), host("a")) == "b"


def test_weight_is_a_share() -> None:
    """Three sessions of four go to the host of three times the weight."""
    counts = {"a": 0, "b": 0}
    for _ in range(40):
        hosts = (host("a", sessions=counts["a"], weight=3), host("b", sessions=counts["b"]))
        counts[chosen(*hosts) or ""] += 1
    assert counts == {"a": 30, "b": 10}


def test_selector() -> None:
    hosts = (host("a", labels={"arch": "arm"}), host("b", labels={"arch": "x86", "gpu": "1"}, used=4))
    assert chosen(*hosts, selector={"arch": "x86"}) == "b"
    assert chosen(*hosts, selector={"arch": "x86"}, parent_host="a") == "b"


def test_with_its_parent_however_full_that_host_is() -> None:
    assert place([host("a"), host("b", queued=9)], selector={}, parent_host="b") == Placement(
        "b", "its parent is there"
    )
    assert chosen(host("a"), host("b", is_draining=True), parent_host="b") == "a"


def test_a_host_by_name_or_none() -> None:
    hosts = (host("a"), host("b", is_draining=True))
    assert chosen(*hosts, host="a") == "a"
    assert place(hosts, selector={}, host="b") == Placement(None, "b is draining")
    assert place(hosts, selector={}, host="c") == Placement(None, "there is no host c")


def test_nowhere_has_its_reasons() -> None:
    hosts = (host("a", is_up=False), host("b", is_draining=True), host("c", labels={"x": "1"}))
    wishes = {"x": "2", "y": "3"}
    assert place(hosts, selector=wishes) == Placement(
        None, "a is not up; b is draining; c has not the label x=2, y=3"
    )
    assert place([], selector={}) == Placement(None, "there is no host")


@pytest.mark.parametrize("parent_host", [None, "h1"])
@given(
    hosts=st.lists(
        st.builds(
            Candidate,
            name=st.sampled_from([f"h{n}" for n in range(5)]),
            labels=st.sampled_from([{}, {"a": "1"}, {"a": "2"}]),
            is_up=st.booleans(),
            is_draining=st.booleans(),
            slots=st.sampled_from([1.0, 2.0, 64.0]),
            used=st.floats(0, 100),
            queued=st.integers(0, 100),
            sessions=st.integers(0, 100),
            memory_total_mb=st.none() | st.floats(0, 1e6),
            memory_available_mb=st.none() | st.floats(0, 1e6),
        ),
        unique_by=lambda each: each.name,
    )
)
def test_always_one_that_fits_or_none_when_there_is_none(
    hosts: list[Candidate], parent_host: str | None
) -> None:
    selector = {"a": "1"}
    fitting = {h.name for h in hosts if h.is_up and not h.is_draining and h.labels == selector}
    placement = place(hosts, selector=selector, parent_host=parent_host)
    assert placement == place(list(hosts), selector=selector, parent_host=parent_host)
    assert placement.reason
    assert placement.host in fitting if fitting else placement.host is None
