"""Balances: what is there after which spending, at which time."""

from hypothesis import given
from hypothesis import strategies as st

from marsproxy.core.token_bucket import TokenBucket


def test_it_begins_full_and_refills_to_its_bound() -> None:
    bucket = TokenBucket(10.0, 100.0, now=0.0)
    bucket.spend(60, now=0.0)
    assert [bucket.balance(now) for now in (0.0, 3.0, 6.0, 60.0)] == [40, 70, 100, 100]


def test_a_minute_is_saved_up_where_no_bound_is_given() -> None:
    assert TokenBucket(10.0, None, now=0.0).balance(1e6) == 600


def test_a_debt_is_paid_off_at_the_same_rate() -> None:
    bucket = TokenBucket(10.0, 100.0, now=0.0)
    bucket.spend(350, now=0.0)
    assert bucket.balance(0.0) == -250
    assert bucket.wait_s(0, now=5.0) == 20
    assert bucket.balance(25.0) == 0


def test_other_terms_forgive_nothing_and_give_nothing() -> None:
    bucket = TokenBucket(10.0, 100.0, now=0.0)
    bucket.spend(200, now=0.0)
    bucket.change(100.0, 1000.0, now=5.0)
    assert bucket.balance(5.0) == -50
    assert bucket.balance(6.0) == 50
    bucket.change(1.0, 20.0, now=6.0)
    assert bucket.balance(6.0) == 20


@given(
    rate=st.floats(0.01, 1e6),
    burst=st.floats(1, 1e9),
    steps=st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 1e7)), max_size=30),
)
def test_nobody_saves_or_spends_more_than_the_terms_allow(
    rate: float, burst: float, steps: list[tuple[float, float]]
) -> None:
    """The balance is never over its bound, and all that was spent beyond it came in at the rate."""
    bucket, now, spent = TokenBucket(rate, burst, 0.0), 0.0, 0.0
    for wait_s, tokens in steps:
        now += wait_s
        assert bucket.balance(now) <= burst
        bucket.spend(tokens, now)
        spent += tokens
        earned = burst + rate * now
        assert spent <= (earned - bucket.balance(now)) * (1 + 1e-9) + 1e-6
        assert bucket.balance(now + bucket.wait_s(0, now)) >= -1e-6 * (1 + spent + earned)
