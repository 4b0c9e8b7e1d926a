from hypothesis import given
from hypothesis import strategies as st

from loadgen.percentiles import PERCENTS, cumulative_shares, distribution, percentile

times = st.floats(min_value=0, max_value=1e9, allow_nan=False)
samples = st.lists(times, min_size=1, max_size=200)
percents = st.integers(min_value=1, max_value=100)


@given(samples, percents)
def test_a_percentile_is_the_smallest_value_that_covers_its_share(values: list[float], percent: int) -> None:
    found = percentile(sorted(values), percent)

    def covers(value: float) -> bool:
        return sum(one <= value for one in values) * 100 >= percent * len(values)

    assert found in values
    assert covers(found)
    assert not any(covers(value) for value in values if value < found)


@given(samples)
def test_percentiles_rise_with_their_share(values: list[float]) -> None:
    ascending = sorted(values)
    found = [percentile(ascending, percent) for percent in range(1, 101)]
    assert found == sorted(found)
    assert found[-1] == ascending[-1]


def test_percentile_ranks_do_not_suffer_from_rounding() -> None:
    hundred = [float(number) for number in range(1, 101)]
    assert [percentile(hundred, percent) for percent in range(1, 101)] == hundred


@given(samples)
def test_a_distribution_stays_within_what_was_measured(values: list[float]) -> None:
    found = distribution(values)
    assert found.count == len(values)
    assert found.mean is not None
    assert found.p50 is not None
    assert min(values) <= found.mean <= max(values)
    assert [found.p50, found.p95, found.p99] == [percentile(sorted(values), one) for one in PERCENTS]
    assert found.max == max(values)


def test_unknown_values_are_left_out_and_nothing_is_not_zero() -> None:
    assert distribution([None, 4.0, None]).mean == 4.0
    assert distribution([None]).count == 0
    assert distribution([]).mean is None
    assert distribution([]).p99 is None


@given(samples, st.integers(min_value=2, max_value=50))
def test_a_curve_rises_to_one_and_keeps_both_ends(values: list[float], max_points: int) -> None:
    curve = cumulative_shares(values, max_points)
    xs, shares = [x for x, _ in curve], [share for _, share in curve]
    assert len(curve) <= max_points
    assert xs == sorted(set(xs))
    assert shares == sorted(shares)
    assert xs[-1] == max(values)
    assert shares[-1] == 1.0
    assert xs[0] == min(values)


@given(samples)
def test_an_unthinned_curve_gives_the_share_at_or_below_each_value(values: list[float]) -> None:
    for x, share in cumulative_shares(values, max_points=len(values) + 2):
        assert share == sum(value <= x for value in values) / len(values)


@given(samples, st.integers(min_value=2, max_value=50))
def test_a_thinned_curve_never_claims_more_than_was_measured(values: list[float], max_points: int) -> None:
    for x, share in cumulative_shares(values, max_points):
        assert share <= sum(value <= x for value in values) / len(values)
