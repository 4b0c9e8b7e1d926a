"""``python -m backend_patch.emulator serve`` with a real vLLM: two API servers, a script, and its end."""

import json
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from backend_patch.emulator.tiny_model import write_tiny_model

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default"), pytest.mark.timeout(600)]

GONE_TIMEOUT_S = 60.0


def children_of(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def processes_in(group: int) -> list[int]:
    """Those that are gone but not waited for included: nobody may be left to wait for them."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group:
            found.append(int(stat.parent.name))
    return found


def test_command_serves_and_leaves_nothing_even_when_killed(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "model", context_tokens=4096)
    script = tmp_path / "script.jsonl"
    script.write_text(json.dumps({"turns": [{"text": "As written."}]}) + "\n")
    line = [sys.executable, "-m", "backend_patch.emulator", "serve", str(tmp_path / "model"), "--port", "0"]
    line += ["--kv-tokens", "8192", "--served-model-name", "tiny", "--script", str(script)]
    line += ["--api-server-count", "2", "--", "--max-logprobs", "5"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as command:
        try:
            assert command.stdout is not None
            url = command.stdout.readline().removeprefix("emulated vllm ready on ").strip()
            body = {"model": "tiny", "messages": [{"role": "user", "content": "Go"}]}
            answers = [httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60) for _ in range(4)]
            texts = [answer.json()["choices"][0]["message"]["content"] for answer in answers]
            assert texts == ["As written."] * 4
            (group,) = children_of(command.pid)
            # Two API servers, an engine, and what coordinates them.
            assert len(processes_in(group)) >= 4
        finally:
            command.kill()
    deadline_s = time.monotonic() + GONE_TIMEOUT_S
    while processes_in(group):
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
