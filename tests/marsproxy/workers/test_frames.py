"""A stream of bytes becomes the frames that made it, wherever it is cut."""

import pytest

from marsproxy.workers.frames import HEAD, MAX_PAYLOAD_BYTES, BrokenStream, Frame, FrameReader, Kind, encode

FRAMES = [Frame(Kind.JOIN), Frame(Kind.RECORD, 7, 1.5, b"payload"), Frame(Kind.PAGE, payload=b"x" * 1000)]


@pytest.mark.parametrize("size", [1, 5, 20, 21, 22, 300, 10_000])
def test_frames_come_whole_however_they_are_cut(size: int) -> None:
    stream, reader = b"".join(map(encode, FRAMES)), FrameReader()
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    assert [frame for piece in pieces for frame in reader.feed(piece)] == FRAMES


@pytest.mark.parametrize(
    "head", [HEAD.pack(0, 0, 0, 0.0), HEAD.pack(0, 200, 0, 0.0), HEAD.pack(MAX_PAYLOAD_BYTES + 1, 1, 0, 0.0)]
)
def test_what_is_no_frame_is_not_waited_for(head: bytes) -> None:
    """An unknown kind, and a payload of a size that nobody sends."""
    with pytest.raises(BrokenStream):
        list(FrameReader().feed(head))
