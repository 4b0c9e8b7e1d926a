"""What was learned comes back, robustly and within bounds; a stranger is unknown."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.predictions import Prediction, Predictions, Quality
from tests.gateway.fake_gateway import ended, gateway_on, run, session_of
from tests.gateway.fake_host import FakeHost

DAY_S = 86_400.0
UNKNOWN = Prediction()


def learned(signature: str, *runs_s: float, **fields: float) -> Predictions:
    predictions = Predictions()
    for now, run_s in enumerate(runs_s):
        predictions.learn(signature, now, run_s=run_s, **fields)
    return predictions


def test_a_stranger_is_unknown() -> None:
    predictions = Predictions()
    assert predictions.predict("make", 0) == UNKNOWN
    assert predictions.predict(None, 0) == UNKNOWN
    predictions.learn(None, 0, run_s=1)
    assert len(predictions) == 0


def test_run_times_take_three_runs_and_memory_one() -> None:
    predictions = learned("make", 10, 10, memory_mb=3000)
    assert predictions.predict("make", 2).run_s is None
    assert predictions.predict("make", 2).memory_mb == pytest.approx(3000, rel=0.3)
    predictions.learn("make", 2, run_s=10)
    assert predictions.predict("make", 3).run_s == pytest.approx(10, rel=0.4)


def test_quantiles_of_what_it_took() -> None:
    predictions = learned("pytest", *(n / 10 for n in range(1, 101)), cpu_s=2.0, memory_mb=500)
    predicted = predictions.predict("pytest", 100)
    assert predicted.run_s == pytest.approx(5, rel=0.25)
    assert predicted.run_p90_s == pytest.approx(9, rel=0.25)
    assert predicted.cpu_s == pytest.approx(2, rel=0.4)
    assert predicted.memory_mb is not None
    assert 480 <= predicted.memory_mb <= 600


def test_one_odd_run_does_not_change_the_picture() -> None:
    predictions = learned("make", *[2.0] * 30, 3600)
    predicted = predictions.predict("make", 31)
    assert predicted.run_s == pytest.approx(2, rel=0.4)
    assert predicted.run_p90_s == pytest.approx(2, rel=0.4)


def test_new_habits_replace_old_ones() -> None:
    predictions = learned("make", *[100.0] * 1000, *[1.0] * 1000)
    assert predictions.predict("make", 2000).run_p90_s == pytest.approx(1, rel=0.6)


def test_small_tools_are_known_to_be_short_and_others_are_not() -> None:
    predictions = Predictions()
    p90_s = {
        name: predictions.predict(name, 0).run_p90_s for name in ("ls", "cat + wc", "find", "cat + make")
    }
    assert p90_s["ls"] == p90_s["cat + wc"] == pytest.approx(0.4, rel=0.1)
    assert p90_s["find"] == pytest.approx(2.7, rel=0.1)
    assert p90_s["cat + make"] is None
    assert predictions.predict("ls", 0).memory_mb is None


def test_what_is_measured_outweighs_what_is_said() -> None:
    """A `tail -f` is no short command for long."""
    predictions = learned("tail", *[60.0] * 5)
    predicted = predictions.predict("tail", 5)
    assert predicted.run_p90_s is not None
    assert predicted.run_p90_s > 30


def test_one_that_was_stopped_tells_its_memory_alone() -> None:
    predictions = Predictions()
    for now in range(5):
        predictions.learn("hog", now, run_s=None, memory_mb=2000)
    predicted = predictions.predict("hog", 5)
    assert predicted.run_s is None
    assert predicted.memory_mb == pytest.approx(2000, rel=0.3)


def test_the_least_recently_met_is_forgotten_first() -> None:
    predictions = Predictions()
    for now in range(2000):
        predictions.learn(f"p{now}", now, run_s=None, memory_mb=1)
    predictions.learn("p0", 2000, run_s=None, memory_mb=1)
    predictions.learn("new", 2001, run_s=None, memory_mb=1)
    assert len(predictions) == 2000
    assert predictions.predict("p0", 2001) != UNKNOWN
    assert predictions.predict("p1", 2001) == UNKNOWN


def test_what_nobody_runs_for_a_week_is_forgotten() -> None:
    predictions = learned("make", 1, 1, 1)
    assert predictions.predict("make", 7 * DAY_S) != UNKNOWN
    assert predictions.predict("make", 7 * DAY_S + 3) == UNKNOWN
    predictions.learn("other", 8 * DAY_S, run_s=1)
    assert len(predictions) == 1


def test_quality_tells_how_good_they_were() -> None:
    predictions = Predictions()
    assert predictions.quality == Quality()
    for now in range(10):
        predictions.learn("make", now, run_s=2.0, memory_mb=100)
    quality = predictions.quality
    assert quality.known_ratio == pytest.approx(0.7)
    assert quality.run_within_ratio == 1
    assert quality.run_factor is not None
    assert 1 <= quality.run_factor < 1.3
    assert quality.memory_within_ratio == 1
    for now in range(10, 20):
        predictions.learn("make", now, run_s=64.0, memory_mb=4000)
    later = predictions.quality
    assert later.run_within_ratio is not None
    assert later.run_factor is not None
    assert later.memory_within_ratio is not None
    assert later.run_within_ratio < 1
    assert later.memory_within_ratio < 1
    assert later.run_factor > quality.run_factor


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ls", "make", "ls + make"]),
            st.none() | st.floats(0, 1e7),
            st.none() | st.floats(0, 1e7),
            st.none() | st.floats(0, 1e8),
        ),
        max_size=40,
    )
)
def test_predictions_are_in_order_whatever_was_learned(
    runs: list[tuple[str, float | None, float | None, float | None]],
) -> None:
    predictions = Predictions()
    for now, (signature, run_s, cpu_s, memory_mb) in enumerate(runs):
        predictions.learn(signature, now, run_s=run_s, cpu_s=cpu_s, memory_mb=memory_mb)
        predicted = predictions.predict(signature, now)
        assert (predicted.run_s is None) == (predicted.run_p90_s is None)
        if predicted.run_s is not None and predicted.run_p90_s is not None:
            assert 0 < predicted.run_s <= predicted.run_p90_s
        if memory_mb is not None:
            assert predicted.memory_mb is not None
            assert predicted.memory_mb > 0


async def test_metrics_tell_how_good_they_are() -> None:
    host = FakeHost()
    async with gateway_on(host) as gateway:
        await session_of(gateway)
        assert "mars_gateway_prediction_run_error_factor NaN" in gateway.metrics.exposition().decode()
        for _ in range(4):
            record = await run(gateway, command="make")
            host.finish(record.id, run_s=2.0, max_rss_mb=100.0)
            await ended(record)
        page = gateway.metrics.exposition().decode()
        assert "mars_gateway_prediction_known_ratio 0.25" in page
        for name in ("run_within_ratio 1.0", "memory_within_ratio 1.0"):
            assert f"mars_gateway_prediction_{name}" in page
        factor = re.search(r"^mars_gateway_prediction_run_error_factor (\S+)$", page, re.MULTILINE)
        assert factor is not None
        assert 1 <= float(factor[1]) < 1.3
