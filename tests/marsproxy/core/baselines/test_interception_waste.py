"""The equations with round numbers: a prefill of a thousand tokens a second."""

import pytest

from marsproxy.core.baselines.interception_waste import break_even_s, discard_waste


def per_thousand(tokens: float) -> float:
    return tokens / 1000


def quadratic(tokens: float) -> float:
    return (tokens / 1000) ** 2


def test_discarding_wastes_half_of_the_context_and_all_others_for_the_prefill():
    assert discard_waste(4_000, 0, per_thousand) == 4.0 * 4_000 / 2
    assert discard_waste(4_000, 10_000, per_thousand) == 4.0 * 4_000 / 2 + 4.0 * 10_000


def test_others_stall_for_the_chunks_not_for_the_whole():
    """16,384 tokens are two chunks: 2 x 8.192^2 s for the others, 16.384^2 s for itself."""
    expected = 16.384**2 * 16_384 / 2 + 2 * 8.192**2 * 1_000
    assert discard_waste(16_384, 1_000, quadratic) == pytest.approx(expected)


def test_break_even_is_where_both_waste_the_same():
    """Preserving 4,000 tokens for 12 s wastes 48,000."""
    assert break_even_s(4_000, 10_000, per_thousand) == 12.0
    assert discard_waste(4_000, 10_000, per_thousand) == 12.0 * 4_000


def test_nothing_is_not_worth_keeping():
    assert break_even_s(0, 10_000, per_thousand) == 0.0
