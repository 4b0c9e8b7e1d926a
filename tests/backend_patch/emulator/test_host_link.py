"""When transfers end: in order within a direction, side by side across directions."""

from backend_patch.emulator.host_link import Direction, HostLink


def ended(link: HostLink, now: float) -> list[int]:
    return [transfer.job for transfer in link.finished(now)]


def test_transfers_of_one_direction_follow_each_other() -> None:
    link = HostLink(tokens_per_s=100.0)
    link.start(0.0, 1, "a", Direction.LOAD, 100)
    link.start(0.0, 2, "b", Direction.LOAD, 100)
    assert ended(link, 0.9) == []
    assert ended(link, 1.0) == [1]
    assert ended(link, 2.0) == [2]
    assert ended(link, 9.0) == []
    assert (link.loaded_tokens, link.stored_tokens) == (200, 0)


def test_directions_do_not_wait_for_each_other() -> None:
    link = HostLink(tokens_per_s=100.0)
    link.start(0.0, 1, "a", Direction.STORE, 500)
    link.start(0.0, 2, "b", Direction.LOAD, 100)
    assert ended(link, 1.0) == [2]
    assert link.stored_tokens == 500


def test_waiting_for_some_jobs() -> None:
    """Those that have ended, or were never there, are not waited for."""
    link = HostLink(tokens_per_s=100.0)
    link.start(0.0, 1, "a", Direction.STORE, 100)
    link.start(0.0, 2, "b", Direction.STORE, 100)
    assert link.ends_s({1, 2, 7}) == 2.0
    assert ended(link, 2.0) == [1, 2]
    assert link.ends_s({1, 2, 7}) == 0.0
