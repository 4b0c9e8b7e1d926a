"""When keeping pays, by hand-computed examples."""

import pytest

from marsproxy.core.histogram import Curve, certain
from marsproxy.core.retention import DEMOTE, PrefillRate, ShadowPrice, best_keep


def test_memory_that_costs_nothing_is_kept_to_the_end():
    keep = best_keep(Curve((1.0, 10.0), (0.5, 1.0)), saved_s=2.0, tokens=1_000, price=0.0)
    assert (keep.ttl_s, keep.value_s) == (10.0, 2.0)


def test_a_long_tail_is_not_waited_for():
    # Half return within a second: 0.5 * 2 - 0.001 * 1000 * (1 * 0.75) = 0.25, at ten seconds
    # 2 - (0.75 + 9 * 0.25) = -1.
    keep = best_keep(Curve((1.0, 10.0), (0.5, 1.0)), saved_s=2.0, tokens=1_000, price=0.001)
    assert keep.ttl_s == 1.0
    assert keep.value_s == pytest.approx(0.25)


def test_what_never_pays_is_demoted():
    assert best_keep(certain(10.0), saved_s=2.0, tokens=1_000, price=0.001) == DEMOTE


def test_the_fastest_first_token_is_nearest_the_truth():
    rate = PrefillRate(10_000)
    for ttft_s in (2.0, 1.0, 8.0):
        rate.learn(20_000, ttft_s)
    assert rate.tokens_per_s == pytest.approx(20_000, rel=0.01)


def test_memory_has_a_price_only_under_pressure():
    price = ShadowPrice()
    for second in range(1_000):
        price.lost(0.5)
        price.observe(100_000, second)
    assert price.per_token_s(0.99) == 0
    # Half a second lost each second, over a hundred thousand tokens that were kept.
    assert price.per_token_s(1.0) == pytest.approx(5e-6, rel=0.01)
    assert price.per_token_s(1.2) == pytest.approx(6e-6, rel=0.01)


def test_a_price_that_is_not_known_is_not_charged():
    assert ShadowPrice().per_token_s(2.0) == 0
