"""Gaps begin and end once; means are per tool."""

from marsproxy.core.baselines.tool_gaps import MAX_SIGNATURES, MEAN_WINDOW, Gap, MeanGaps, ToolGaps


def test_a_gap_ends_once():
    gaps = ToolGaps()
    gaps.begin("a", "bash", 3.0)
    assert gaps.end("a") == Gap("bash", 3.0)
    assert gaps.end("a") is None
    assert len(gaps) == 0


def test_means_are_per_tool_and_unknown_is_none():
    means = MeanGaps()
    means.learn("bash", 1.0)
    means.learn("bash", 3.0)
    means.learn(None, 100.0)
    assert (means.mean_s("bash"), means.mean_s("grep"), means.mean_s(None)) == (2.0, None, None)


def test_old_gaps_and_unused_tools_are_forgotten():
    means = MeanGaps()
    for gap_s in [100.0, *[1.0] * MEAN_WINDOW]:
        means.learn("bash", gap_s)
    assert means.mean_s("bash") == 1.0
    for index in range(MAX_SIGNATURES):
        means.learn(f"tool{index}", 1.0)
    assert means.mean_s("bash") is None
