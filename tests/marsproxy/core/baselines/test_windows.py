"""Bounded memories keep the latest and nothing else."""

from marsproxy.core.baselines.windows import LatestNames, MeanWindow, SortedWindow


def test_a_mean_is_of_the_latest_values():
    window = MeanWindow(2)
    assert window.mean is None
    window.add(1.0)
    assert window.mean == 1.0
    window.add(2.0)
    window.add(6.0)
    assert (window.mean, len(window)) == (4.0, 2)


def test_a_sorted_window_drops_the_oldest_not_the_smallest():
    window = SortedWindow(3)
    for value in (5.0, 1.0, 3.0, 1.0, 4.0):
        window.add(value)
    assert window.ascending == [1.0, 3.0, 4.0]
    assert len(window) == 3


def test_the_name_unused_for_longest_is_dropped():
    latest = LatestNames[list[int]](2, list)
    latest.use("a").append(1)
    latest.use("b").append(2)
    latest.use("a").append(3)
    latest.use("c").append(4)
    assert (latest.get("a"), latest.get("b"), latest.get("c"), len(latest)) == ([1, 3], None, [4], 2)
