"""SWE-agent: ``*.traj``, one run a file, with its steps.

A step has the answer, what its command printed and how long that took; no times of day and no usage of
single calls, only sums (``info.model_stats``). Since 1.0 a step has its whole ``query``; before that, the
messages before the first answer are taken from ``history``. A step that ran nothing, followed by another,
is an answer that SWE-agent could not use and asked for again: a failed call.
"""

from pathlib import Path

from loadgen.errors import WorkloadError
from loadgen.importers.files import digest_of, document
from loadgen.importers.transcript import Call, Reading, ToolUse, Transcript
from loadgen.importers.values import Fields, fields, items, seconds, text

SOURCE = "swe-agent"
SHELL = "bash"


def is_document(found: object) -> bool:
    return isinstance(found, dict) and isinstance(found.get("trajectory"), list)


def read(path: Path, reading: Reading) -> list[Transcript]:
    found = document(path)
    if not is_document(found):
        raise WorkloadError("has no list 'trajectory'", path=str(path))
    run = fields(found)
    steps = [fields(step) for step in items(run.get("trajectory"))]
    transcript = Transcript(SOURCE, digest_of(path))
    observed: object = first_messages(steps, run)
    for i, step in enumerate(steps):
        if is_retried(step, is_last=i == len(steps) - 1):
            reading.count("failed calls")
        elif text(step.get("response")) is not None:
            transcript.calls.append(call_of(step, observed, reading))
            observed = step.get("observation")
    return [transcript]


def first_messages(steps: list[Fields], run: Fields) -> object:
    """What the first prompt holds: demonstrations, task and all."""
    query = items(steps[0].get("query")) if steps else []
    if any(fields(message).get("content") for message in query):
        return query
    before = []
    for message in map(fields, items(run.get("history"))):
        if message.get("role") == "assistant" and message.get("is_demo") is not True:
            break
        before.append(message)
    return before


def is_retried(step: Fields, *, is_last: bool) -> bool:
    # Runs of the first versions have no times at all.
    return not is_last and not step.get("observation") and step.get("execution_time") == 0


def call_of(step: Fields, observed: object, reading: Reading) -> Call:
    action = text(step.get("action"))
    ran = ToolUse(SHELL, duration_s=seconds(step.get("execution_time")), command=reading.command(action))
    return Call(
        added_tokens=reading.counter.count_in(observed),
        # The response is the model's text; where it called a tool, the action is not part of it.
        answer_tokens=reading.count_all([step.get("response"), called_text(step)]),
        tools=[ran] if action is not None and action.strip() else [],
    )


def called_text(step: Fields) -> str | None:
    response, action = text(step.get("response")) or "", text(step.get("action")) or ""
    return None if action.strip() in response else action
