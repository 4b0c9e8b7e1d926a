"""The three commands of the README on transcripts of one's own: imported, replayed, simulated.

The commands are taken from the page; only paths and ports are others. The server is the embedded engine, a
process of its own.
"""

import re
import shlex
from pathlib import Path

import pytest

from loadgen.run_files import read_run
from loadgen.trace import read_sessions
from marsproxy.children import Child
from tests.integration.test_simulated_against_live import ran
from tests.loadgen.importers.samples import write_all

README = Path(__file__).parents[2] / "README.md"


def commands() -> list[list[str]]:
    """Of the section on transcripts, in their order."""
    section = README.read_text("utf-8").split("### With your own agents' transcripts")[1]
    block = re.search(r"```console\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return [shlex.split(line.removeprefix("$ ")) for line in block[1].splitlines()]


@pytest.mark.slow
async def test_transcripts_are_imported_replayed_and_simulated(tmp_path: Path) -> None:
    write_all(tmp_path / "transcripts")
    imported, live, simulated = tmp_path / "mine.jsonl", tmp_path / "live", tmp_path / "simulated"
    engine = Child("loadgen", "engine", "--port", "0")
    try:
        others = {
            "~/.claude/projects": str(tmp_path / "transcripts"),
            "mine.jsonl": str(imported),
            "http://127.0.0.1:8080": await engine.start(),
            # Pauses of the samples are a minute and less.
            "10": "0.5",
        }
        to_import, to_run, to_simulate = ([others.get(word, word) for word in words] for words in commands())
        assert [to_import[1], to_run[1], to_simulate[1]] == ["import", "run", "simulate"]
        assert "6 sessions from 6 files" in await ran(*to_import)
        await ran(*to_run, "--out", str(live))
        await ran(*to_simulate, "--out", str(simulated))
    finally:
        await engine.stop()
    turns = sum(len(session.turns) for session in read_sessions(imported))
    for out in (live, simulated):
        summary = read_run(out).summary
        assert (summary["completed"], summary["failed"], summary["turns"]) == (6, 0, turns)
    # Exact prompts: what was recorded is what the server counted.
    prompts = [sorted(turn.prompt_tokens or 0 for turn in read_run(out).turns) for out in (live, simulated)]
    assert prompts[0] == pytest.approx(prompts[1], rel=0.02, abs=16)
