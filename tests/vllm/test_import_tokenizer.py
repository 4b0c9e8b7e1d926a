"""``loadgen import --tokenizer``, where the package that reads tokenizers is installed."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from loadgen.__main__ import run_command
from loadgen.trace import read_sessions
from loadgen.workload import Turn

pytestmark = pytest.mark.vllm


def test_text_without_usage_is_counted_by_the_tokenizer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One token a word, so that the counts are known."""
    by_word = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    by_word.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    by_word.save(str(tmp_path / "tokenizer.json"))
    messages = [
        {"role": "user", "content": "three words here"},
        {"role": "assistant", "content": "an answer"},
        {"role": "user", "content": "and"},
        {"role": "assistant", "content": "the end of it"},
    ]
    (tmp_path / "run.traj.json").write_text(json.dumps({"messages": messages}), "utf-8")
    out = tmp_path / "w.jsonl"
    words = ["import", str(tmp_path / "run.traj.json"), "--tokenizer", str(tmp_path / "tokenizer.json")]
    assert run_command([*words, "--out", str(out)]) == 0
    (session,) = read_sessions(out)
    assert session.turns == [Turn(3, 2), Turn(1, 4)]
    assert session.tokens_by == "tokenizer"
    assert "1 session by tokenizer" in capsys.readouterr().out
