"""Which transcripts a path holds, and of which format: by what is in a file, not by its name.

A directory is walked. What is no transcript is passed over there, as projects keep other files too; a path
that was named is expected to be one.
"""

import os
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

from loadgen.errors import WorkloadError
from loadgen.importers import claude_code, codex, mini_swe_agent, openhands, openhands_list, swe_agent
from loadgen.importers.files import as_object, document
from loadgen.trace.lines import numbered_lines

ENDINGS = (".jsonl", ".json", ".traj", ".jsonl.gz", ".json.gz", ".traj.gz")
"""Of files that are looked into while walking."""
LINES_TRIED = 50
"""A file of lines may begin with some that say nothing: summaries, snapshots."""


class Format(Enum):
    CLAUDE_CODE = claude_code.SOURCE
    CODEX = codex.SOURCE
    MINI_SWE_AGENT = mini_swe_agent.SOURCE
    OPENHANDS = openhands.SOURCE
    SWE_AGENT = swe_agent.SOURCE


def candidates(path: Path) -> Iterator[Path]:
    """Files, and directories that are one OpenHands conversation, in the order of their names."""
    if not path.is_dir():
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders.sort()
        directory = Path(folder)
        if openhands.is_conversation(directory):
            yield directory
            folders[:] = [name for name in folders if name == openhands.CHILDREN_DIR]
        else:
            yield from (directory / name for name in sorted(names) if name.endswith(ENDINGS))


def format_of(path: Path) -> Format | None:
    """None of what is no transcript; a file that looks like one and is broken is an error."""
    if path.is_dir():
        return Format.OPENHANDS
    for tried, (_, line) in enumerate(numbered_lines(path)):
        found = as_object(line)
        if found is not None and claude_code.is_record(found):
            return Format.CLAUDE_CODE
        if found is not None and codex.is_record(found):
            return Format.CODEX
        if tried == LINES_TRIED:
            break
    # Lines of something else do not parse as a document either.
    return format_of_document(path)


def format_of_document(path: Path) -> Format | None:
    try:
        found = document(path)
    except WorkloadError:
        if path.name.removesuffix(".gz").endswith((".traj", ".traj.json")):
            raise
        return None
    if swe_agent.is_document(found):
        return Format.SWE_AGENT
    if mini_swe_agent.is_document(found):
        return Format.MINI_SWE_AGENT
    return Format.OPENHANDS if openhands_list.is_document(found) else None
