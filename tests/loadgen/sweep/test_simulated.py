"""From a recipe to what the simulator is told; names of its settings are checked against it."""

from pathlib import Path

import pytest

from loadgen.arrivals import ClosedLoop, OpenLoop
from loadgen.errors import LoadgenError
from loadgen.run_files import read_run
from loadgen.sim.tool_hosts import Discipline
from loadgen.summary import META_KEYS
from loadgen.sweep.cells import Recipe
from loadgen.sweep.grid import PolicyEntry, SourceOptions, ToolHost
from loadgen.sweep.grid_file import packaged_grids, read_grid
from loadgen.sweep.runner import Setting
from loadgen.sweep.simulated import check_policy_entries, run_recipe, settings_of, with_overrides, workload_of

RECIPE = Recipe(
    source="autonomous", sessions=4, seed=7, hardware="h100", model="qwen3-30b-a3b", kv_tokens=200_000,
    policy="fcfs", rate_per_s=0.5, options=SourceOptions(max_turns=3),
)  # fmt: skip


def test_a_recipe_reaches_the_simulator() -> None:
    recipe = Recipe(
        source="autonomous", sessions=4, seed=7, hardware="h100", model="qwen3-30b-a3b", kv_tokens=1000,
        policy="mars", agents=3, backends=2, tools=ToolHost(cores=2.0, memory_gb=1.5),
        policy_settings={"admission.kv_target": 1.25}, simulator={"telemetry_delay_s": 5, "sizes": "true"},
    )  # fmt: skip
    settings = settings_of(recipe)
    assert (settings.policy, settings.load, settings.seed, settings.backends) == ("mars", ClosedLoop(3), 7, 2)
    assert settings.policy_settings.admission.kv_target == 1.25
    assert (settings.telemetry_delay_s, settings.sizes.value) == (5, "true")
    assert settings.tools is not None
    assert (settings.tools.memory_mb, settings.tools.discipline) == (1536, Discipline.SHARING)
    assert settings_of(RECIPE).load == OpenLoop(0.5)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (PolicyEntry("mras"), "'mras' is not known; allowed: .*mars"),
        (
            PolicyEntry("mars", settings={"admision.kv_target": 1}),
            "set.admision is not known; allowed: admission",
        ),
        (PolicyEntry("mars", settings={"admission.kv": 1}), "set.admission.kv is not known; .*kv_target"),
        (PolicyEntry("mars", settings={"admission.kv_target": "all"}), "set.admission.kv_target: Expected"),
        (PolicyEntry("mars", settings={"admission.kv_target": 7}), "kv_target: 7.* is not allowed"),
        (PolicyEntry("mars", settings={"admission.kv_target.x": 7}), "kv_target is a single setting"),
        (
            PolicyEntry("mars", simulator={"delay_s": 5}),
            "simulator.delay_s is not known; .*telemetry_delay_s",
        ),
        (PolicyEntry("mars", simulator={"seed": 5}), "simulator.seed is not known"),
        (PolicyEntry("mars", simulator={"sizes": "wrong"}), "simulator.sizes: Invalid enum"),
        (PolicyEntry("mars", simulator={"size_factor": 0}), "size factor above 0"),
    ],
    ids=repr,
)
def test_names_and_values_are_checked_before_anything_runs(entry: PolicyEntry, words: str) -> None:
    with pytest.raises(LoadgenError, match=words):
        check_policy_entries([entry])


def test_settings_are_reached_by_dotted_name_or_by_table() -> None:
    dotted = PolicyEntry("mars", settings={"admission.look_ahead": 5, "admission.kv_target": 1})
    nested = PolicyEntry("mars", settings={"admission": {"look_ahead": 5, "kv_target": 1}})
    one, two = (with_overrides(entry, ClosedLoop(1), 0).policy_settings for entry in (dotted, nested))
    assert one == two
    assert (one.admission.look_ahead, one.admission.kv_target) == (5, 1.0)


@pytest.mark.parametrize("name", packaged_grids())
def test_packaged_grids_name_what_the_simulator_has(name: str) -> None:
    check_policy_entries(read_grid(name).run.policies)


def test_a_seed_draws_its_own_sessions() -> None:
    one, two = (workload_of(recipe, None).sessions for recipe in (RECIPE, Recipe(
        source="autonomous", sessions=4, seed=8, hardware="h", model="m", kv_tokens=1, policy="fcfs",
    )))  # fmt: skip
    assert len(one) == len(two) == 4
    assert [session.turns for session in one] != [session.turns for session in two]
    assert max(len(session.turns) for session in one) == 3


@pytest.mark.slow
def test_a_cell_is_simulated_and_its_records_kept_if_asked_for(tmp_path: Path) -> None:
    summary = run_recipe(RECIPE, Setting(records_dir=tmp_path))
    assert summary["completed"] == 4
    assert summary.keys() >= {*META_KEYS, "jct_s", "goodput_alpha3", "throughput_turns_per_s"}
    kept = read_run(tmp_path / RECIPE.key)
    assert (len(kept.sessions), kept.summary["jct_s"]) == (4, summary["jct_s"])
    assert kept.notes == []
