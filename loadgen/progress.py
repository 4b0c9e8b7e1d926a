"""What the terminal shows while a run goes on. Shows numbers it is given; measures nothing."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from loadgen.records import SessionRecord, TurnRecord


class RunProgress:
    def __init__(self, title: str, sessions: int, console: Console, *, counts_turns: bool = True) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=console,
            # The bar redraws in a thread of its own: rarely, because every redraw takes the interpreter.
            refresh_per_second=4,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID = self._bar.add_task(title, total=sessions, state="")
        self._counts_turns = counts_turns
        self._turns = self._failed = self._running = 0

    def start(self) -> None:
        self._bar.start()

    def stop(self) -> None:
        self._bar.stop()

    def session_began(self) -> None:
        self._running += 1
        self._show()

    def turn_ended(self, record: TurnRecord) -> None:
        self._turns += 1
        self._show()

    def session_ended(self, record: SessionRecord) -> None:
        self._running -= 1
        self._failed += record.error is not None
        self._bar.advance(self._task)
        self._show()

    def _show(self) -> None:
        words = [f"{self._running} running", f"{self._turns} turns"] if self._counts_turns else []
        if self._failed:
            words.append(f"{self._failed} failed")
        self._bar.update(self._task, state=", ".join(words))
