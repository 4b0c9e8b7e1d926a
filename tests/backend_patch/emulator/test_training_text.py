"""There is text to learn from on every machine, and what agents write is part of it."""

from backend_patch.emulator.training_text import AGENT_TEXT, AGENT_WEIGHT, training_lines


def test_most_of_it_is_english_of_the_library() -> None:
    text = "".join(training_lines())
    assert text.count(AGENT_TEXT) == AGENT_WEIGHT
    assert len(text) > 3 * AGENT_WEIGHT * len(AGENT_TEXT)
    assert text.count(" the ") > 5000
