"""Byte ranges."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ranges import ByteRange, Span, Unsatisfiable, read_range


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("bytes=0-3", Span(0, 4)),
        ("bytes=2-", Span(2, 10)),
        ("bytes=-3", Span(7, 10)),
        ("bytes=-99", Span(0, 10)),
        ("bytes=8-99", Span(8, 10)),
        ("bytes= 9-9 ", Span(9, 10)),
    ],
)
def test_served(header: str, span: Span) -> None:
    asked = read_range(header)
    assert asked is not None
    assert asked.within(10) == span


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-12", "bytes=-0"])
def test_nothing_there(header: str) -> None:
    asked = read_range(header)
    assert asked is not None
    with pytest.raises(Unsatisfiable):
        asked.within(10)


@pytest.mark.parametrize(
    "header",
    [None, "", "bytes=-", "bytes=3-1", "bytes=0-1,4-5", "lines=1-2", "bytes=a-b", f"bytes={'9' * 40}-"],
)
def test_the_whole_is_served(header: str | None) -> None:
    assert read_range(header) is None


def test_of_an_empty_file_nothing_can_be_had() -> None:
    with pytest.raises(Unsatisfiable):
        ByteRange(0, None).within(0)


@given(st.text(max_size=30), st.integers(0, 1 << 40))
def test_any_text_is_a_span_within_or_none(text: str, size: int) -> None:
    asked = read_range(f"bytes={text}")
    if asked is None:
        return
    try:
        span = asked.within(size)
    except Unsatisfiable:
        return
    assert 0 <= span.start < span.stop <= size
