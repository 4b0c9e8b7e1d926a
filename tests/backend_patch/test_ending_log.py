"""Endings of leases: numbered, bounded, encoded once."""

import msgspec
import pytest

from backend_patch.ending_log import CAPACITY, EndingLog
from backend_patch.protocol import Ending, LeaseEnding

A, B = ("a", ""), ("b", "x")


def test_numbers_and_totals() -> None:
    """From 1; later than asked."""
    log = EndingLog()
    log.add(A, Ending.RESUMED, 64, 48)
    log.add(B, Ending.EXPIRED, 32)
    assert log.after(0) == (
        LeaseEnding(1, "a", Ending.RESUMED, 64, 48),
        LeaseEnding(2, "b", Ending.EXPIRED, 32, branch="x"),
    )
    assert [each.seq for each in log.after(1)] == [2]
    assert (log.last_seq, log.totals[Ending.RESUMED], log.totals[Ending.RECLAIMED]) == (2, 1, 0)


def test_what_is_taken_bit_by_bit_is_one() -> None:
    """Until somebody reads."""
    log = EndingLog()
    for _ in range(3):
        log.add_reclaimed(A, 16)
        log.add_reclaimed(B, 32)
    assert [(each.session, each.tokens) for each in log.after(0)] == [("a", 48), ("b", 96)]
    log.add_reclaimed(A, 16)
    log.add(A, Ending.RESUMED, 16, 16)
    assert [(each.how, each.tokens) for each in log.after(2)] == [("reclaimed", 16), ("resumed", 16)]


def test_ring_is_bounded() -> None:
    """The numbers go on."""
    log = EndingLog()
    for number in range(3 * CAPACITY):
        log.add_reclaimed((str(number), ""), 1)
        log.add(A, Ending.EXPIRED, 1)
    endings = log.after(0)
    assert (len(endings), endings[-1].seq) == (CAPACITY, log.last_seq)
    assert len(log._taken) <= CAPACITY + 1


def test_encoded_as_json() -> None:
    """The inside of an array."""
    log = EndingLog()
    assert log.encoded(1 << 20) == b""
    log.add(A, Ending.RESUMED, 64, 48)
    log.add_reclaimed(B, 16)
    text = b"[" + log.encoded(1 << 20) + b"]"
    assert tuple(msgspec.json.decode(text, type=list[LeaseEnding])) == log.after(0)


def sent(log: EndingLog, max_bytes: int) -> list[int]:
    endings = msgspec.json.decode(b"[" + log.encoded(max_bytes) + b"]", type=list[LeaseEnding])
    return [ending.seq for ending in endings]


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
