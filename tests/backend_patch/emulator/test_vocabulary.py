"""Only words that are one token in any place are taken for filler."""

from backend_patch.emulator.vocabulary import TokenizerVocabulary, words_of

PIECES = ["a", " the", " The", " x", " in\n", " word", " wo", "rd", " über", " 12", " other"]


class Pieces:
    def get_vocab_size(self) -> int:
        return len(PIECES)

    def decode(self, ids: list[int]) -> str:
        return "".join(PIECES[token] for token in ids)


def encode(text: str) -> list[int]:
    """Never takes " wo": something else always goes before it."""
    return [PIECES.index(text)] if text in PIECES and text != " wo" else [0, 0]


def test_filler_is_plain_words_that_come_back_as_they_were() -> None:
    assert words_of(Pieces(), encode) == [" the", " word", " other"]
    assert words_of(Pieces(), encode, limit=2) == [" the", " word"]


def test_counting_is_encoding() -> None:
    assert TokenizerVocabulary([], encode).count("something") == 2
