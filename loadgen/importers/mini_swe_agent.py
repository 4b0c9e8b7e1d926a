"""mini-swe-agent: ``*.traj.json``, one run a file, with its messages.

Each answer keeps the usage that the server reported and the time at which it was there; observations keep
the time after the last command of the answer. An answer that could not be parsed is not in the history
(mini keeps it in the ``extra`` of the message that says so): a failed call. In trajectories of the
responses API an answer is a whole response object.
"""

from pathlib import Path

from loadgen.errors import WorkloadError
from loadgen.importers.files import digest_of, document
from loadgen.importers.transcript import Call, Reading, ToolUse, Transcript
from loadgen.importers.values import Fields, count, fields, items, latest, moment, text

SOURCE = "mini-swe-agent"
SHELL = "bash"
"""Its only tool."""


def is_document(found: object) -> bool:
    return isinstance(found, dict) and isinstance(found.get("messages"), list)


def read(path: Path, reading: Reading) -> list[Transcript]:
    found = document(path)
    if not is_document(found):
        raise WorkloadError("has no list 'messages'", path=str(path))
    transcript = Transcript(SOURCE, digest_of(path))
    upcoming = Call()
    for message in map(fields, items(fields(found).get("messages"))):
        if is_answer(message):
            transcript.calls.append(answered(upcoming, message, reading))
            upcoming = Call()
        elif message.get("role") != "exit":
            add_input(upcoming, message, transcript, reading)
    return [transcript]


def is_answer(message: Fields) -> bool:
    return message.get("role") == "assistant" or message.get("object") == "response"


def answered(call: Call, message: Fields, reading: Reading) -> Call:
    extra = fields(message.get("extra"))
    usage = fields(fields(extra.get("response")).get("usage")) or fields(message.get("usage"))
    call.prompt_tokens = count(usage.get("prompt_tokens")) or count(usage.get("input_tokens"))
    call.output_tokens = count(usage.get("completion_tokens")) or count(usage.get("output_tokens"))
    call.answer_tokens = reading.count_all(message.get(name) for name in ("content", "tool_calls", "output"))
    call.answered_at = moment(extra.get("timestamp"))
    actions = map(fields, items(extra.get("actions")))
    call.tools = [ToolUse(SHELL, command=reading.command(action.get("command"))) for action in actions]
    return call


def add_input(upcoming: Call, message: Fields, transcript: Transcript, reading: Reading) -> None:
    extra = fields(message.get("extra"))
    if text(extra.get("interrupt_type")) == "FormatError":
        reading.count("failed calls")
    at = moment(extra.get("timestamp"))
    if transcript.calls and is_observation(message, extra):
        for tool in transcript.calls[-1].tools:
            tool.ended_at = latest(tool.ended_at, at)
    upcoming.asked_at = latest(upcoming.asked_at, at)
    upcoming.added_tokens += reading.count_all(message.get(name) for name in ("content", "output"))


def is_observation(message: Fields, extra: Fields) -> bool:
    return message.get("role") == "tool" or "raw_output" in extra or "returncode" in extra
