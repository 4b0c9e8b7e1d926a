"""What a command will take, by its signature: run time, CPU and memory.

Owns what was learned; it must not know who asks, nor what the commands were beyond their signatures.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Prediction:
    """None is unknown."""

    run_s: float | None = None
    """Half of its kind take less."""
    run_p90_s: float | None = None
    """Nine in ten do: what ``Ask.expected_s`` wants."""
    cpu_s: float | None = None
    memory_mb: float | None = None
    """Peak that nineteen in twenty stay below: what ``Ask.memory_mb`` wants where nobody asked."""


class Predictions:
    def predict(self, signature: str | None, now: float) -> Prediction:
        return Prediction()

    def learn(
        self,
        signature: str | None,
        now: float,
        *,
        run_s: float | None,
        cpu_s: float | None = None,
        memory_mb: float | None = None,
    ) -> None:
        """Only of commands that ended by themselves: how long one ran that was stopped says nothing."""
