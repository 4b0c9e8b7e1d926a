"""Streams put together: what a client has in the end, however the backend cut it into events."""

from dataclasses import dataclass, field
from typing import Any

Event = dict[str, Any]
TEXTS = ("content", "reasoning", "arguments", "text", "partial_json")


@dataclass
class Stream:
    texts: dict[str, str] = field(default_factory=dict)
    """By place, joined."""
    others: list[Event] = field(default_factory=list)
    """The events that are more than a piece of text, without their pieces."""

    def add(self, place: str, text: str) -> None:
        self.texts[place] = self.texts.get(place, "") + text


def put_together(events: list[Event]) -> Stream:
    stream = Stream()
    for event in events:
        is_more = _take_choices(event, stream) if "choices" in event else _take_delta(event, stream)
        if is_more:
            # Its number depends on how many pieces came before.
            stream.others.append({key: value for key, value in event.items() if key != "sequence_number"})
    return stream


def _take_choices(event: Event, stream: Stream) -> bool:
    """Of chat and completions. True if something is left."""
    is_more = not event["choices"]
    for choice in event["choices"]:
        place = f"choice {choice['index']}"
        _take_texts(choice, place, stream)
        delta = choice.get("delta", {})
        _take_texts(delta, place, stream)
        for call in delta.get("tool_calls", ()):
            _take_texts(call["function"], f"{place}, call {call['index']}", stream)
        is_named = any("id" in call for call in delta.get("tool_calls", ()))
        is_more |= choice["finish_reason"] is not None or "role" in delta or is_named
    return is_more


def _take_delta(event: Event, stream: Stream) -> bool:
    """Of responses and messages. True if the event is none."""
    delta = event.get("delta")
    place = f"{event['type']} {event.get('output_index')} {event.get('index')}"
    if isinstance(delta, str):
        stream.add(place, delta)
        return False
    if event["type"] == "content_block_delta":
        _take_texts(delta, place, stream)
        return False
    return True


def _take_texts(part: Event, place: str, stream: Stream) -> None:
    for name in TEXTS:
        if isinstance(text := part.pop(name, None), str):
            stream.add(f"{place}, {name}", text)
