"""A server in one formula, in place of the simulator, and a grid for it.

Below its capacity a policy takes ``SESSION_S``; past it the mean JCT grows with the square of the load.
"""

from typing import Any

from loadgen.sweep.cells import Recipe
from loadgen.sweep.runner import Setting

SESSION_S = 100.0

CAPACITY_PER_S = {"fcfs": 0.05, "priority": 0.06, "mars": 0.1, "oracle": 0.11}

TOY_GRID = """
title = "A toy"

[run]
seeds = [1, 2, 3]
sessions = 20
loads = [0.25, 1.0, 1.5]
policies = [
    "fcfs",
    "priority",
    "mars",
    { name = "oracle", group = "bound" },
    { name = "mars", label = "mars, blind", group = "ablation", set = { "admission.kv_target" = 0.5 } },
]

[[workloads]]
name = "steady"
about = "nothing but tools"
source = "autonomous"
kv_tokens = 1000
knee_per_s = 0.05
agents = [2, 4]

[[workloads]]
name = "searched"
source = "interactive"
kv_tokens = 2000
sessions = 10

[own_knees]
of = ["priority"]

[[bars]]
name = "twice as fast as stock past the knee"
workloads = ["steady"]
loads = [1.5]
at_least = 2.0
seeds = "worst"

[[bars]]
name = "as fast as the oracle"
over = ["oracle"]
at_least = 1.5
"""


def toy_summary(recipe: Recipe, setting: Setting) -> dict[str, Any]:
    """A module's function, as the workers need it."""
    capacity = CAPACITY_PER_S[recipe.policy]
    rate = recipe.rate_per_s if recipe.rate_per_s is not None else (recipe.agents or 0) / SESSION_S / 4
    jct_s = SESSION_S * (1 + 0.01 * recipe.seed) * max(1.0, 2 * (rate / capacity) ** 2)
    return {
        "policy": recipe.policy,
        "seed": recipe.seed,
        "jct_s": {"mean": jct_s, "p95": 2 * jct_s, "p99": 3 * jct_s, "max": 4 * jct_s},
        "goodput_alpha3": min(1.0, SESSION_S / jct_s),
        "throughput_turns_per_s": min(rate, capacity),
        "continuation_hit_ratio": 0.9,
        "preemptions": 0,
        "failed": 0,
    }


def failing_on_seed_2(recipe: Recipe, setting: Setting) -> dict[str, Any]:
    if recipe.seed == 2:
        raise RuntimeError("the toy is broken")
    return toy_summary(recipe, setting)


def always_failing(recipe: Recipe, setting: Setting) -> dict[str, Any]:
    raise RuntimeError("the toy is broken")
