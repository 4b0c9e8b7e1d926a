"""The control law: readings in, width out."""

from dataclasses import dataclass, field

from marsproxy.core.baselines.window import Window
from marsproxy.core.events import BackendObserved, Ending, TurnEnded


@dataclass
class Engine:
    """Reads itself every second, and counts prompts like vLLM."""

    window: Window = field(default_factory=lambda: Window(8.0))
    now: float = 0.0
    queries: int | None = 0
    hits: int | None = 0

    def runs(
        self, seconds: int, *, usage: float | None, hit_rate: float = 1.0, is_full: bool = True
    ) -> float:
        for _ in range(seconds):
            self.now += 1.0
            if self.queries is not None and self.hits is not None:
                self.queries += 1_000
                self.hits += round(1_000 * hit_rate)
            reading = BackendObserved(
                "gpu",
                kv_used_ratio=usage,
                prefix_queries_total=self.queries,
                prefix_hits_total=self.hits,
            )
            self.window.observe(reading, self.now, is_full=is_full)
        return self.window.width


def test_it_widens_by_one_an_interval_while_usage_is_low():
    assert Engine().runs(15, usage=0.1) == 11


def test_it_is_not_widened_while_nobody_presses_against_it():
    assert Engine().runs(15, usage=0.1, is_full=False) == 8


def test_it_is_halved_an_interval_while_usage_is_high_and_hits_are_few():
    assert Engine().runs(10, usage=0.9, hit_rate=0.3) == 2


def test_one_agent_is_always_let_in():
    assert Engine().runs(60, usage=0.9, hit_rate=0.3) == 1


def test_it_stays_where_usage_is_high_and_prompts_are_found():
    assert Engine().runs(60, usage=0.9, hit_rate=0.9) == 8


def test_it_stays_between_the_marks():
    assert Engine().runs(60, usage=0.4, hit_rate=0.3) == 8


def test_unknown_usage_changes_nothing():
    assert Engine().runs(60, usage=None, hit_rate=0.0) == 8


def test_only_the_hits_of_the_interval_count():
    engine = Engine()
    engine.runs(600, usage=0.9, hit_rate=1.0)
    assert engine.runs(5, usage=0.9, hit_rate=0.0) == 4


def test_an_engine_that_was_started_anew_is_no_change_of_its_hit_rate():
    engine = Engine()
    engine.runs(4, usage=0.9, hit_rate=1.0)
    engine.queries = engine.hits = 0
    assert engine.runs(1, usage=0.9, hit_rate=0.0) == 8


def test_without_counters_the_usage_of_turns_tells():
    engine = Engine(queries=None, hits=None)
    for _ in range(3):
        engine.window.turn_ended(TurnEnded("a1", Ending.FINISHED, prompt_tokens=1_000, cached_tokens=100))
    engine.window.turn_ended(TurnEnded("a2", Ending.FINISHED, prompt_tokens=1_000, cached_tokens=None))
    assert engine.runs(5, usage=0.9) == 4
    assert engine.runs(5, usage=0.9) == 4, "no prompt in the second interval"


def test_counters_are_believed_before_turns():
    engine = Engine()
    engine.runs(1, usage=0.9)
    engine.window.turn_ended(TurnEnded("a1", Ending.FINISHED, prompt_tokens=10**9, cached_tokens=0))
    assert engine.runs(4, usage=0.9, hit_rate=1.0) == 8
