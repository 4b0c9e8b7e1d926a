"""What a summary says of the load and of the code."""

import re
import subprocess
from pathlib import Path

import pytest

from loadgen.arrivals import Arrivals, AsTraced, ClosedLoop, Load, OpenLoop
from loadgen.provenance import commit, describe


@pytest.mark.parametrize(
    ("load", "said"),
    [
        (OpenLoop(0.5, Arrivals.BURST), {"arrivals": "burst", "rate": 0.5, "concurrency": None}),
        (ClosedLoop(8), {"arrivals": "closed", "rate": None, "concurrency": 8}),
        (AsTraced(), {"arrivals": "traced", "rate": None, "concurrency": None}),
    ],
)
def test_a_load_says_all_it_has(load: Load, said: dict[str, object]) -> None:
    assert describe(load) == said


def test_the_commit_is_the_checkouts() -> None:
    found = commit()
    root = Path(__file__).parent.parent.parent
    has_git = (
        subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, check=False).returncode
        == 0
    )
    assert (found is not None) == has_git
    assert found is None or re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", found)


def test_without_git_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert commit() is None
