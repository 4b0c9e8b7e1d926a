"""From the patch's numbers to the policy's."""

import msgspec
import pytest

from backend_patch.protocol import Ending, Headroom, LeaseEnding, RankHeadroom
from marsproxy.core.events import BackendObserved, KvReclaimed, LeaseExpired, LeaseResumed
from marsproxy.patch_headroom import EndingsCursor, event_of, reading_of
from tests.integration.patched_backend import PATCH, rank

BUSY = rank(
    free_blocks=500,
    leased_blocks=250,
    running=3,
    waiting=2,
    preemptions_total=7,
    prefix_queries_total=1000,
    prefix_hits_total=900,
)


def test_leases_are_counted_beside_what_requests_hold() -> None:
    """As in the simulator: a quarter is used, a quarter leased."""
    assert reading_of("gpu", Headroom((BUSY,)), PATCH) == BackendObserved(
        "gpu",
        kv_tokens_total=16_000,
        kv_used_ratio=0.25,
        running=3,
        waiting=2,
        preemptions_total=7,
        prefix_queries_total=1000,
        prefix_hits_total=900,
        takes_hints=True,
        kv_leased_tokens=4000,
    )


def test_ranks_are_added_up() -> None:
    """Blocks of different sizes too; use is weighed by blocks."""
    other = msgspec.structs.replace(BUSY, rank=1, block_tokens=32, free_blocks=1000, leased_blocks=0)
    reading = reading_of("gpu", Headroom((BUSY, other)), PATCH)
    assert (reading.kv_tokens_total, reading.kv_used_ratio, reading.kv_leased_tokens) == (48_000, 0.125, 4000)
    assert (reading.running, reading.waiting, reading.preemptions_total) == (6, 4, 14)
    assert (reading.prefix_queries_total, reading.prefix_hits_total) == (2000, 1800)


def test_a_configured_pool_goes_before_what_is_read() -> None:
    """As with the metrics page."""
    assert reading_of("gpu", Headroom((BUSY,)), PATCH, kv_tokens=5).kv_tokens_total == 5


@pytest.mark.parametrize(
    ("has_host_tier", "speed", "shown"),
    [(True, 1e5, 1e5), (False, 1e5, None), (True, None, None)],
)
def test_the_host_tier(has_host_tier: bool, speed: float | None, shown: float | None) -> None:
    """Unknown speed is unknown."""
    capabilities = msgspec.structs.replace(PATCH, has_host_tier=has_host_tier, host_tokens_per_s=speed)
    assert reading_of("gpu", Headroom((BUSY,)), capabilities).kv_swap_tokens_per_s == shown


@pytest.mark.parametrize("ranks", [(), (rank(blocks=0),)], ids=["none", "empty"])
def test_no_pool_is_no_reading(ranks: tuple[RankHeadroom, ...]) -> None:
    """Not an idle backend."""
    with pytest.raises(ValueError, match="no blocks"):
        reading_of("gpu", Headroom(ranks), PATCH)


@pytest.mark.parametrize(
    ("ending", "event"),
    [
        (LeaseEnding(1, "s", Ending.RESUMED, 640, 600), LeaseResumed("s", "gpu", 640, 600)),
        (LeaseEnding(1, "s", Ending.RESUMED, 640, 0), LeaseResumed("s", "gpu", 640, 0)),
        (LeaseEnding(1, "s", Ending.RESUMED, 640), None),
        (LeaseEnding(1, "s", Ending.RECLAIMED, 64), KvReclaimed("s", "gpu", 64)),
        (LeaseEnding(1, "s", Ending.EXPIRED, 64), LeaseExpired("s", "gpu", 64)),
    ],
)
def test_endings_teach(ending: LeaseEnding, event: object) -> None:
    """Only what was said: a hit of unknown size is not one of 0."""
    assert event_of("gpu", ending) == event


def ending(seq: int) -> LeaseEnding:
    return LeaseEnding(seq, f"s{seq}", Ending.EXPIRED, 16)


def page(last_seq: int, *seqs: int, step: int = 1, number: int = 0) -> Headroom:
    endings = tuple(ending(seq) for seq in seqs)
    return Headroom((rank(rank=number, step=step, last_seq=last_seq, endings=endings),))


class Reading:
    """A cursor, and what it made of each page: sequence numbers taken, lost ones, where it is."""

    def __init__(self) -> None:
        self.cursor = EndingsCursor()

    def __call__(self, headroom: Headroom) -> tuple[list[int], int, str]:
        taken, missed = self.cursor.take(headroom)
        return [each.seq for each in taken], missed, self.cursor.after


def test_what_was_before_us_is_not_ours() -> None:
    """The first page only says where to go on."""
    read = Reading()
    assert read.cursor.after == ""
    assert read(page(7, 5, 6, 7)) == ([], 0, "0:7")
    assert read(page(9, 8, 9)) == ([8, 9], 0, "0:9")
    assert read(page(9)) == ([], 0, "0:9")


def test_nothing_is_taken_twice() -> None:
    """Whatever the page repeats, and in whichever order."""
    read = Reading()
    read(page(1))
    assert read(page(3, 3, 2, 1)) == ([2, 3], 0, "0:3")
    assert read(page(4, 2, 3, 4, 4)) == ([4], 0, "0:4")


def test_a_gap_is_counted() -> None:
    """In front of what is there, within it, or all of it."""
    read = Reading()
    read(page(0))
    assert read(page(6, 4, 6)) == ([4, 6], 4, "0:6")
    assert read(page(9)) == ([], 3, "0:9")


def test_a_page_may_hold_back_what_is_later() -> None:
    """Then it is asked for."""
    read = Reading()
    read(page(0))
    assert read(page(50, 1, 2)) == ([1, 2], 0, "0:2")


def test_ranks_count_for_themselves() -> None:
    """And come as they come up."""
    read = Reading()
    read(page(3))
    assert read(page(5, number=1)) == ([], 0, "0:3,1:5")
    assert read(page(4, 4)) == ([4], 0, "0:4,1:5")


@pytest.mark.parametrize("again", [page(0, step=2), page(40, 38, 39, 40, step=0)], ids=["seq", "step"])
def test_an_engine_that_was_started_anew(again: Headroom) -> None:
    """Counts from 1 again; all that it has is then asked for."""
    read = Reading()
    read(page(20, step=1))
    assert read.cursor.has_restarted(again)
    assert read(again) == ([], 0, "0:0")
    assert not read.cursor.has_restarted(again)
    assert read(page(2, 1, 2, step=3)) == ([1, 2], 0, "0:2")
