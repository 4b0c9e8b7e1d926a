"""What is kept of the ends of leases, and how much of it is sent."""

import msgspec
import pytest

from backend_patch.ending_log import CAPACITY, EndingLog
from backend_patch.protocol import Ending, LeaseEnding


def sent(log: EndingLog, max_bytes: int) -> list[int]:
    endings = msgspec.json.decode(b"[" + log.encoded(max_bytes) + b"]", type=list[LeaseEnding])
    return [ending.seq for ending in endings]


def test_only_the_latest_are_kept() -> None:
    log = EndingLog()
    for number in range(CAPACITY + 5):
        log.add((f"s{number}", ""), Ending.EXPIRED, 16)
    assert sent(log, 1 << 20) == list(range(6, CAPACITY + 6))
    assert log.totals[Ending.EXPIRED] == CAPACITY + 5


@pytest.mark.parametrize("name", ["s", "s" * 256, "é" * 256, "\x01" * 256])
@pytest.mark.parametrize("max_bytes", [0, 1, 100, 5000, 60_000])
def test_the_latest_that_fit_are_sent(name: str, max_bytes: int) -> None:
    """Names are the client's: long ones may not make what is sent longer than its place."""
    log = EndingLog()
    for _ in range(CAPACITY):
        log.add((name, name), Ending.RESUMED, 16, 8)
    length = len(log.encoded(max_bytes))
    numbers = sent(log, max_bytes)
    assert length <= max_bytes
    assert numbers == list(range(CAPACITY + 1 - len(numbers), CAPACITY + 1))
    assert len(numbers) == CAPACITY or length + len(log.encoded(1 << 20)) // CAPACITY + 3 > max_bytes


def test_what_is_reclaimed_bit_by_bit_is_one_ending() -> None:
    log = EndingLog()
    log.add_reclaimed(("a", ""), 16)
    log.add_reclaimed(("a", ""), 32)
    assert log.after(0) == (LeaseEnding(1, "a", Ending.RECLAIMED, 48),)
    assert log.after(1) == ()
