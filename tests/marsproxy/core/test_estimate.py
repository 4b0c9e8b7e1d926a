"""What the estimators learn, how fast, and how much they remember."""

from hypothesis import given
from hypothesis import strategies as st

from marsproxy.core.estimate import MAX_FAMILIES, PEAK_WINDOW, PeakEstimator, ReturnRate, TokenRatio


def test_an_unknown_family_is_expected_to_be_like_the_prior():
    assert PeakEstimator().expected("family", 35_000) == 35_000


def test_the_prior_weighs_as_much_as_three_sessions():
    peaks = PeakEstimator()
    for number in range(9):
        peaks.learn("family", f"s{number}", 1_000)
    assert peaks.expected("family", 5_000) == (3 * 5_000 + 9 * 1_000) / 12


def test_a_newer_peak_of_a_session_replaces_its_older_one():
    peaks = PeakEstimator()
    peaks.learn("family", "s", 1_000)
    peaks.learn("family", "s", 9_000)
    assert peaks.expected("family", 1_000) == (3 * 1_000 + 9_000) / 4


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 100_000)), max_size=100))
def test_only_the_latest_sessions_count(learned):
    peaks, latest = PeakEstimator(), {}
    for number, peak_tokens in learned:
        peaks.learn("family", f"s{number}", peak_tokens)
        latest.pop(number, None)
        latest[number] = peak_tokens
    window = list(latest.values())[-PEAK_WINDOW:]
    assert peaks.expected("family", 20_000) == (3 * 20_000 + sum(window)) / (3 + len(window))


def test_families_are_bounded_and_the_quietest_goes_first():
    peaks = PeakEstimator()
    peaks.learn("first", "s", 1_000)
    for number in range(MAX_FAMILIES):
        peaks.learn(f"family-{number}", "s", 1_000)
    assert peaks.expected("first", 9_000) == 9_000
    assert peaks.expected("family-0", 9_000) < 9_000


def test_the_ratio_comes_to_what_usage_says():
    ratio = TokenRatio()
    for _ in range(50):
        ratio.learn(1_000, 1_500)
    assert 1_480 <= ratio.corrected(1_000) <= 1_500


def test_one_odd_turn_moves_the_ratio_little():
    ratio = TokenRatio()
    ratio.learn(1, 1_000_000)
    assert ratio.corrected(1_000) <= 2_000


def test_nothing_is_learned_from_a_turn_without_tokens():
    ratio = TokenRatio()
    ratio.learn(0, 1_000)
    ratio.learn(1_000, 0)
    assert ratio.corrected(1_000) == 1_000


def test_a_family_is_taken_to_be_done_until_seven_of_its_text_answers_were_followed_up():
    rate = ReturnRate()
    assert not rate.is_return_likely("family")
    for _ in range(7):
        rate.learn("family", has_returned=True)
    assert rate.is_return_likely("family")
    assert not rate.is_return_likely("other")


def test_return_rates_are_bounded():
    rate = ReturnRate()
    for _ in range(7):
        rate.learn("first", has_returned=True)
    for number in range(MAX_FAMILIES):
        rate.learn(f"family-{number}", has_returned=False)
    assert not rate.is_return_likely("first")
