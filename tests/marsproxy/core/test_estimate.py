"""What the estimators learn, how fast, and how much they remember."""

from marsproxy.core.estimate import (
    COMEBACK_WINDOW,
    MAX_FAMILIES,
    MAX_RATIOS,
    MOST_OFF,
    ComebackRate,
    ReturnRate,
    TokenRatio,
    TokenRatios,
)


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


# -- coming back at all ---------------------------------------------------------------------------


def test_a_comeback_is_likely_until_it_has_shown_otherwise():
    """Four rests with two returns are supposed, so the seventh rest without a return is one too many."""
    rate = ComebackRate()
    assert rate.is_likely("family")
    likely = []
    for _ in range(7):
        rate.rested("family")
        likely.append(rate.is_likely("family"))
    assert likely == [True] * 6 + [False]
    assert rate.is_likely("other")


def test_one_comeback_in_four_is_enough():
    rate = ComebackRate()
    for number in range(1_000):
        rate.rested("family")
        if number % 4 == 0:
            rate.came_back("family")
    assert rate.is_likely("family")


def test_what_was_long_ago_fades():
    rate = ComebackRate()
    for _ in range(2_000):
        rate.rested("family")
    rested = 0
    while not rate.is_likely("family"):
        rate.rested("family")
        rate.came_back("family")
        rested += 1
    assert rested <= COMEBACK_WINDOW / 2


def test_comebacks_of_families_that_never_rested_are_not_counted():
    rate = ComebackRate()
    rate.came_back("family")
    for _ in range(7):
        rate.rested("family")
    assert not rate.is_likely("family")


def test_comeback_rates_are_bounded():
    rate = ComebackRate()
    for _ in range(7):
        rate.rested("first")
    for number in range(MAX_FAMILIES):
        rate.rested(f"family-{number}")
    assert rate.is_likely("first")


def test_the_ratio_of_one_tenant_is_not_anothers():
    """Prompts that are cut into ten times as many tokens as theirs make nobody else's ten times the size."""
    ratios = TokenRatios()
    for _ in range(50):
        ratios.learn("calm", 1_000, 1_000)
    for _ in range(500):
        ratios.learn("bad", 10, 1_000)
    assert ratios.corrected("calm", 1_000) == 1_000
    assert ratios.corrected("new", 1_000) == 1_000 * MOST_OFF
    assert ratios.corrected("bad", 1_000) > 9_000


def test_a_tenant_alone_has_the_ratio_of_all():
    ratios, ratio = TokenRatios(), TokenRatio()
    for actual in (1_500, 900, 2_000):
        ratios.learn("t", 1_000, actual)
        ratio.learn(1_000, actual)
        assert ratios.corrected("t", 777) == ratios.corrected("new", 777) == ratio.corrected(777)


def test_ratios_have_a_bound():
    ratios = TokenRatios()
    for _ in range(10):
        ratios.learn("first", 1_000, 10_000)
    assert ratios.corrected("first", 1_000) > 1_000 * MOST_OFF
    for number in range(MAX_RATIOS):
        ratios.learn(str(number), 1_000, 1_000)
    assert ratios.corrected("first", 1_000) == ratios.corrected("nobody", 1_000)
