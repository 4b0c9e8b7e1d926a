"""The choices of one HTTP request in the engine, and the coroutine that waits for their tokens.

One waiter at most. A streaming request is woken for its first token, then every ``interval`` tokens,
then for the last; any other one only when a choice is over.
"""

import asyncio
from collections.abc import Iterator, Sequence

from loadgen.engine.answers import Answer
from loadgen.engine.reader import AnswerReader, Delta
from loadgen.engine.realtime import RealTimeEngine
from loadgen.engine.requests import EngineRequest, Phase


class Choice:
    """One answer on its way: the engine's request, and how much of it the client has seen."""

    def __init__(self, index: int, answer: Answer, request: EngineRequest) -> None:
        self.index = index
        self.answer = answer
        self.request = request
        self.sent_tokens = 0
        self._reader = AnswerReader(answer)

    @property
    def has_news(self) -> bool:
        return self.request.generated_tokens > self.sent_tokens

    @property
    def is_complete(self) -> bool:
        return self.request.generated_tokens >= self.request.output_tokens

    def take(self) -> list[Delta]:
        """What became visible since the last call."""
        self.sent_tokens = self.request.generated_tokens
        return self._reader.advance(self.sent_tokens)


class Generation:
    def __init__(
        self, engine: RealTimeEngine, choices: Sequence[Choice], *, interval: int | None, prompts: int = 1
    ) -> None:
        """``interval`` is in tokens; None tells only of choices that are over. Each prompt has the
        same number of choices, one after the other."""
        self.choices = choices
        self._firsts = choices[:: len(choices) // prompts]
        self.is_aborted = False
        """The client left, or the engine stopped."""
        self._engine = engine
        self._interval = interval
        self._waiter: asyncio.Future[None] | None = None
        self._by_request = {choice.request: choice for choice in choices}

    def submit(self) -> None:
        for choice in self.choices:
            self._engine.submit(choice.request, self._on_tokens)

    def abort(self) -> None:
        """The client is gone: free everything now. A no-op once all choices are complete."""
        if self.is_complete:
            return
        self.is_aborted = True
        for choice in self.choices:
            self._engine.abort(choice.request)
        self._wake()

    @property
    def is_complete(self) -> bool:
        return all(choice.is_complete for choice in self.choices)

    @property
    def prompt_tokens(self) -> int:
        return sum(choice.request.prompt_tokens for choice in self._firsts)

    @property
    def cached_tokens(self) -> int:
        return sum(choice.request.cached_tokens or 0 for choice in self._firsts)

    @property
    def completion_tokens(self) -> int:
        return sum(choice.request.generated_tokens for choice in self.choices)

    async def wait(self) -> bool:
        """Wait for news of any choice; False once the request is aborted."""
        if not self.is_aborted and not any(self._due(choice) for choice in self.choices):
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return not self.is_aborted

    async def wait_complete(self) -> bool:
        """Wait for the end of all choices; False if the request is aborted instead."""
        while not self.is_complete:
            for choice in self.choices:
                if choice.is_complete:
                    choice.sent_tokens = choice.request.generated_tokens
            if not await self.wait():
                return False
        return True

    def due(self) -> Iterator[Choice]:
        """The choices that have something to send."""
        return (choice for choice in self.choices if self._due(choice))

    def _due(self, choice: Choice) -> bool:
        if not choice.has_news:
            return False
        if choice.is_complete:
            return True
        if self._interval is None:
            return False
        return not choice.sent_tokens or (
            choice.request.generated_tokens - choice.sent_tokens >= self._interval
        )

    def _on_tokens(self, request: EngineRequest) -> None:
        if request.phase is Phase.ABORTED:
            self.is_aborted = True
            self._wake()
        elif self._waiter is not None and self._due(self._by_request[request]):
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
