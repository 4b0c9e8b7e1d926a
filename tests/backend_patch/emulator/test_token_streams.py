"""Texts that nobody wrote: which of them are alike, and that nothing is hashed twice."""

from backend_patch.emulator.token_streams import PIECE_TOKENS, TokenStream, TokenStreams

BLOCK = 16


class Hashing:
    """Counts, and makes of a block what says which blocks it stands on."""

    def __init__(self) -> None:
        self.blocks = 0

    def __call__(self, parent: bytes | None, ids: list[int]) -> bytes:
        self.blocks += 1
        return (parent or b"") + bytes(ids)


def stream(name: str, begins_with: TokenStream | None = None, shared_tokens: int = 0) -> TokenStream:
    return TokenStream(name, BLOCK, Hashing(), begins_with, shared_tokens)


def test_a_name_is_one_text_however_it_is_read() -> None:
    at_once, bit_by_bit = stream("a"), stream("a")
    long = PIECE_TOKENS + 100
    assert [bit_by_bit.id_at(index) for index in range(long)] == at_once.ids(long)
    assert at_once.ids(10) == at_once.ids(long)[:10]
    assert stream("b").ids(100) != at_once.ids(100)


def test_texts_share_what_they_begin_with_and_no_more() -> None:
    system = stream("system")
    one, other = stream("one", system, 40), stream("other", system, 40)
    assert one.ids(40) == other.ids(40) == system.ids(40)
    assert one.ids(100)[40:] != other.ids(100)[40:]
    # The third block has eight of the shared tokens and eight of its own.
    assert one.hashes(0, 2) == other.hashes(0, 2)
    assert one.hashes(2, 3) != other.hashes(2, 3)


def test_a_block_is_hashed_once() -> None:
    hashing = Hashing()
    streams = TokenStreams(BLOCK, hashing)
    first = streams.get("session", "system", 64)
    assert len(first.hashes(0, 10)) == 10
    assert streams.get("session", "system", 64).hashes(5, 12) == first.hashes(5, 12)
    assert hashing.blocks == 12
    streams.get("another", "system", 64).hashes(0, 5)
    assert hashing.blocks == 13  # four of its five are the system prompt's


def test_the_text_used_longest_ago_goes_and_comes_back_the_same() -> None:
    streams = TokenStreams(BLOCK, Hashing(), max_texts=2)
    before = streams.get("a").ids(50)
    streams.get("b")
    streams.get("a")
    streams.get("c")
    assert len(streams) == 2
    assert streams.get("a").ids(50) == before
