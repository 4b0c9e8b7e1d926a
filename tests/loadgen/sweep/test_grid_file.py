"""A grid file fails before its first cell, and the message says what would be right."""

import pytest

from loadgen.errors import LoadgenError
from loadgen.sweep.grid_file import packaged_grids, parse_grid, read_grid
from tests.loadgen.sweep.toy import TOY_GRID


def test_a_policy_may_be_written_as_its_name() -> None:
    grid = parse_grid(TOY_GRID, "toy")
    assert [entry.title for entry in grid.run.policies] == [
        "fcfs",
        "priority",
        "mars",
        "oracle",
        "mars, blind",
    ]
    assert grid.run.policies[4].settings == {"admission.kv_target": 0.5}


def test_what_a_workload_says_goes_before_what_the_run_says() -> None:
    grid = parse_grid(TOY_GRID, "toy")
    steady, searched = grid.workloads
    assert (grid.sessions_of(steady), grid.sessions_of(searched)) == (20, 10)
    assert grid.loads_of(searched) == grid.run.loads


@pytest.mark.parametrize(
    ("right", "wrong", "words"),
    [
        ('title = "A toy"', 'titel = "A toy"', ["'titel'", "allowed: title, run"]),
        ("sessions = 20", "session = 20", ["'run.session'", "seeds, policies, sessions"]),
        ("kv_tokens = 1000", "kv_token = 1000", ["'workloads.kv_token'", "kv_tokens"]),
        ("kv_tokens = 1000", 'kv_tokens = "many"', ["int", "workloads"]),
        ("kv_tokens = 1000", "kv_tokens = 0", ["steady", "1 or more"]),
        ("agents = [2, 4]", "agents = [0]", ["agents", "1 or more"]),
        ("sessions = 10", "sessions = 0", ["searched", "1 or more"]),
        ("seeds = [1, 2, 3]", "seeds = []", ["must each have an entry"]),
        ("loads = [0.25, 1.0, 1.5]", "loads = [0.0]", ["more than 0"]),
        ("knee_per_s = 0.05", "knee_per_s = -1.0", ["steady", "knee_per_s", '"find"']),
        ("knee_per_s = 0.05", 'knee_per_s = "guess"', ["guess"]),
        ('group = "bound"', 'grp = "bound"', ["'run.policies.grp'", "group"]),
        ('label = "mars, blind", ', "", ["'mars' is there twice", "labels"]),
        ('name = "searched"', 'name = "steady"', ["'steady' is there twice"]),
        ('of = ["priority"]', 'of = ["prio"]', ["'prio' is not known", "priority"]),
        ('over = ["oracle"]', 'over = ["orakel"]', ["as fast as the oracle", "'orakel'", "best"]),
        ('workloads = ["steady"]', 'workloads = ["stead"]', ["'stead'", "steady, searched"]),
        ("at_least = 1.5", 'at_least = 1.5\nmetric = "jct"', ["'jct' is not known", "jct_s.mean"]),
        ("at_least = 1.5", "at_least = 1.5\nown_knee = [1.0]", ["own_knee over: 'oracle'", "priority"]),
        ("loads = [1.5]", "loads = [1.5]\nown_knee = [1.0]", ["exclude each other"]),
        ("[own_knees]", "[own_knees", ["no TOML"]),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(right: str, wrong: str, words: list[str]) -> None:
    assert right in TOY_GRID
    with pytest.raises(LoadgenError) as raised:
        parse_grid(TOY_GRID.replace(right, wrong), "toy")
    for word in ["toy", *words]:
        assert word in str(raised.value)


def test_a_file_that_is_not_there_names_the_packaged_grids() -> None:
    with pytest.raises(LoadgenError, match=r"nowhere.*cpu, fidelity, full, reduced"):
        read_grid("nowhere")


@pytest.mark.parametrize("name", packaged_grids())
def test_packaged_grids_are_whole(name: str) -> None:
    grid = read_grid(name)
    assert grid.bars
    assert {"fcfs", "mars"} <= {entry.title for entry in grid.run.policies}
