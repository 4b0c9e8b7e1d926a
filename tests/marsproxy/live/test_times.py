"""Times of late: what is too old does not count, and nothing is not zero."""

from marsproxy.live.times import JCT_WINDOW_S, MAX_TIMES, TTFT_WINDOW_S, Times


def test_times_of_late() -> None:
    times = Times()
    for number in range(1, 101):
        times.first_token(0.0, number / 100)
    times.job_done("a", 0.0, 10.0)
    times.job_done("a", 1.0, 12.0)
    late = times.of_late(1.0)
    assert late["ttft"] == {"n": 100, "p50": 0.51, "p95": 0.96}
    assert late["jct"] == {"n": 1, "p50": 12.0, "p95": 12.0}
    assert times.of_late(TTFT_WINDOW_S + 1)["ttft"] == {"n": 0, "p50": None, "p95": None}
    assert times.of_late(JCT_WINDOW_S + 2)["jct"]["p50"] is None


def test_they_have_a_bound() -> None:
    times = Times()
    for number in range(MAX_TIMES + 5):
        times.first_token(0.0, 1.0)
        times.job_done(f"s{number}", 0.0, 1.0)
    late = times.of_late(0.0)
    assert (late["ttft"]["n"], late["jct"]["n"]) == (MAX_TIMES, MAX_TIMES)
