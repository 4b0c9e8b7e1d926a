"""The engine's speed, seen through times to first token that waiting made longer."""

import pytest

from marsproxy.core.baselines.prefill_times import PRIOR_S_PER_TOKEN, WINDOW, PrefillTimes


def test_before_anything_was_seen_there_is_a_prior():
    assert PrefillTimes().seconds(1_000) == 1_000 * PRIOR_S_PER_TOKEN


def test_waiting_is_not_prefill():
    """One of twenty turns found the engine free: 1,000 tokens in 0.1 s."""
    times = PrefillTimes()
    for waited_s in (3.0, 9.0, 0.0, *range(1, 18)):
        times.learn(1_000, 0, 0.1 + waited_s)
    assert times.seconds(1_000) == pytest.approx(0.1)


def test_a_slower_engine_is_noticed_in_the_end():
    times = PrefillTimes()
    for ttft_s in (0.1, *[0.4] * WINDOW):
        times.learn(1_000, 0, ttft_s)
    assert times.seconds(1_000) == pytest.approx(0.4)


def test_long_prompts_have_a_speed_of_their_own():
    times = PrefillTimes()
    times.learn(1_000, 0, 0.1)
    times.learn(100_000, 0, 20.0)
    assert times.seconds(1_000) == pytest.approx(0.1)
    assert times.seconds(100_000) == pytest.approx(20.0)
    assert times.seconds(600) == pytest.approx(0.06), "the nearest length that was seen"
    assert times.seconds(200_000) == pytest.approx(40.0)


@pytest.mark.parametrize(("prompt", "cached"), [(400, 0), (100_000, 98_000)])
def test_short_and_cached_prompts_teach_nothing(prompt: int, cached: int):
    times = PrefillTimes()
    times.learn(prompt, cached, 30.0)
    assert times.seconds(1_000) == 1_000 * PRIOR_S_PER_TOKEN
