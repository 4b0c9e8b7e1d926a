"""Whatever tools come and go: none is lost, no work is lost, the bounds hold, the sharing is exact."""

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.sim.tool_host import THRASH_EXPONENT
from loadgen.sim.tool_hosts import Discipline, ToolHosts, ToolHostShape, ToolStep, is_apart
from loadgen.workload import ToolCall
from marsproxy.core.events import ToolPhase


@dataclass(frozen=True, slots=True)
class Submission:
    at_s: float
    call: ToolCall


# Quarters are exact in binary, so ties are ties in the model and in what it is compared with.
quarters = st.integers(0, 24).map(lambda n: n / 4)
calls = st.builds(
    ToolCall,
    name=st.just("bash"),
    duration_s=quarters,
    cores=st.sampled_from([0.0, 0.25, 1.0, 1.5, 4.0]),
    memory_mb=st.sampled_from([0.0, 1.0, 30.0, 60.0, 150.0]),
)
submissions = st.lists(st.builds(Submission, quarters, calls), min_size=1, max_size=25).map(
    lambda found: sorted(found, key=lambda each: each.at_s)
)
shapes = st.builds(
    ToolHostShape,
    cores=st.sampled_from([0.5, 1.0, 2.0, 3.0]),
    memory_mb=st.sampled_from([None, 100.0, 200.0]),
    discipline=st.sampled_from(Discipline),
    hosts=st.integers(1, 3),
    slots_per_core=st.sampled_from([0.5, 1.0, 2.0]),
)


@dataclass(slots=True)
class Watched:
    """Tool hosts, with everything they said and the work that they did."""

    hosts: ToolHosts
    steps: list[ToolStep]
    worked_core_s: float = 0.0
    now: float = 0.0

    def until(self, at_s: float) -> None:
        while (next_s := self.hosts.next_change_s) is not None and next_s <= at_s:
            self._pass(next_s)
            self.steps += self.hosts.advance(next_s)
        self._pass(at_s)

    def to_the_end(self) -> None:
        while (next_s := self.hosts.next_change_s) is not None:
            self.until(next_s)

    def _pass(self, at_s: float) -> None:
        self.worked_core_s += self.hosts.cores_busy * (at_s - self.now)
        self.now = at_s

    def submit_all(self, todo: list[Submission]) -> None:
        for i, each in enumerate(todo):
            self.until(each.at_s)
            self.steps += self.hosts.submit(str(i), each.call, each.at_s)


@given(shapes, submissions)
def test_each_tool_is_queued_started_and_finished_once(shape: ToolHostShape, todo: list[Submission]) -> None:
    watched = Watched(ToolHosts(shape), [])
    watched.submit_all(todo)
    watched.to_the_end()
    seen: dict[str, list[ToolPhase]] = {str(i): [] for i in range(len(todo))}
    for step in watched.steps:
        seen[step.key].append(step.phase)
    assert all(phases == list(ToolPhase) for phases in seen.values())
    times = [step.at_s for step in watched.steps]
    assert times == sorted(times)
    hosts = watched.hosts
    assert (hosts.running, hosts.queued, hosts.cores_busy, hosts.memory_used_mb) == (0, 0, 0, 0)


@given(shapes, submissions)
def test_the_work_done_is_the_work_asked_for(shape: ToolHostShape, todo: list[Submission]) -> None:
    watched = Watched(ToolHosts(shape), [])
    watched.submit_all(todo)
    watched.to_the_end()
    asked = sum(each.call.cores * each.call.duration_s for each in todo)
    assert watched.worked_core_s == pytest.approx(asked, abs=1e-6)


@given(shapes, submissions)
def test_no_core_idles_while_a_tool_could_use_it(shape: ToolHostShape, todo: list[Submission]) -> None:
    """One host, as where to put a tool is a choice; memory aside, as that is another bound."""
    one = ToolHostShape(shape.cores, None, shape.discipline, 1, shape.slots_per_core)
    watched = Watched(ToolHosts(one), [])
    for i, each in enumerate(todo):
        watched.until(each.at_s)
        watched.steps += watched.hosts.submit(str(i), each.call, each.at_s)
        started = [step.key for step in watched.steps if step.phase is ToolPhase.STARTED]
        finished = {step.key for step in watched.steps if step.phase is ToolPhase.FINISHED}
        wanted = sum(todo[int(key)].call.cores for key in started if key not in finished)
        assert watched.hosts.cores_busy == pytest.approx(min(wanted, one.cores))
        assert watched.hosts.queued == 0 or watched.hosts.running == one.slots
        if one.discipline is Discipline.SHARING:
            assert watched.hosts.queued == 0


@given(shapes, submissions)
def test_with_slots_the_bounds_hold_and_the_order_too(shape: ToolHostShape, todo: list[Submission]) -> None:
    gated = ToolHostShape(shape.cores, shape.memory_mb, Discipline.SLOTS, 1, shape.slots_per_core)
    watched = Watched(ToolHosts(gated), [])
    watched.submit_all(todo)
    watched.to_the_end()
    running: dict[str, float] = {}
    for step in watched.steps:
        call = todo[int(step.key)].call
        if is_apart(call):
            continue
        if step.phase is ToolPhase.STARTED:
            running[step.key] = call.memory_mb
        elif step.phase is ToolPhase.FINISHED:
            del running[step.key]
        assert len(running) <= gated.slots
        assert gated.memory_mb is None or len(running) <= 1 or sum(running.values()) <= gated.memory_mb
    order = [
        int(step.key)
        for step in watched.steps
        if step.phase is ToolPhase.STARTED and not is_apart(todo[int(step.key)].call)
    ]
    assert order == sorted(order)


@given(shapes, submissions, st.data())
def test_cancelled_tools_leave_nothing_behind(
    shape: ToolHostShape, todo: list[Submission], data: st.DataObject
) -> None:
    watched = Watched(ToolHosts(shape), [])
    cancelled: set[str] = set()
    for i, each in enumerate(todo):
        watched.until(each.at_s)
        watched.steps += watched.hosts.submit(str(i), each.call, each.at_s)
        if data.draw(st.booleans()):
            victim = str(data.draw(st.integers(0, i)))
            watched.steps += watched.hosts.cancel(victim, each.at_s)
            cancelled.add(victim)
    watched.to_the_end()
    ended = Counter(step.key for step in watched.steps if step.phase is ToolPhase.FINISHED)
    assert max(ended.values(), default=1) == 1
    assert set(ended) | cancelled == {str(i) for i in range(len(todo))}
    hosts = watched.hosts
    assert (hosts.running, hosts.queued, hosts.cores_busy, hosts.memory_used_mb) == (0, 0, 0, 0)


@settings(max_examples=200)
@given(st.sampled_from([0.5, 1.0, 2.0]), st.sampled_from([None, 100.0]), submissions)
def test_sharing_is_the_exact_fluid_solution(
    cores: float, memory_mb: float | None, todo: list[Submission]
) -> None:
    watched = Watched(ToolHosts(ToolHostShape(cores, memory_mb, Discipline.SHARING)), [])
    watched.submit_all(todo)
    watched.to_the_end()
    ends = {int(step.key): step.at_s for step in watched.steps if step.phase is ToolPhase.FINISHED}
    assert ends == pytest.approx(fluid_ends(cores, memory_mb, todo), abs=1e-6)


def fluid_ends(cores: float, memory_mb: float | None, todo: list[Submission]) -> dict[int, float]:
    """The same, tool by tool: every event recomputes every rate and what is left of every tool."""
    left: dict[int, float] = {}
    ends: dict[int, float] = {}
    now, pending = 0.0, list(enumerate(todo))
    while pending or left:
        wanted = sum(todo[i].call.cores for i in left)
        held = sum(todo[i].call.memory_mb for i in left)
        slowed = (held / memory_mb) ** THRASH_EXPONENT if memory_mb and held > memory_mb else 1.0
        rates = {i: rate_of(todo[i].call, cores, wanted, slowed) for i in left}
        until = min([now + left[i] / rates[i] for i in left] + [each.at_s for _, each in pending[:1]])
        left = {i: todo_s - rates[i] * (until - now) for i, todo_s in left.items()}
        now = until
        for i in [i for i, todo_s in left.items() if todo_s <= 1e-9]:
            ends[i] = now
            del left[i]
        while pending and pending[0][1].at_s <= now:
            i, each = pending.pop(0)
            left[i] = each.call.duration_s
    return ends


def rate_of(call: ToolCall, cores: float, wanted: float, slowed: float) -> float:
    if is_apart(call):
        return 1.0
    return (min(1.0, cores / wanted) if call.cores else 1.0) / slowed
