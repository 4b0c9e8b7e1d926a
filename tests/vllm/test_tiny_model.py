"""The tiny model's tokenizer and template, as transformers and vLLM read them: dense, fast, prefix-stable."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest

# With vLLM's environment comes what these read the folder with.
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from backend_patch.emulator.chat_template import GENERATION_PROMPT
from backend_patch.emulator.markup import lengthened, render_answer
from backend_patch.emulator.tiny_model import write_tiny_model
from backend_patch.emulator.vocabulary import WORDS, TokenizerVocabulary, open_vocabulary
from backend_patch.script import ScriptedAnswer, parse_answer
from loadgen.history import TOOLS, History, RequestOptions
from loadgen.sse import Answer, CalledTool
from loadgen.text import TextSource

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]

Messages = list[dict[str, Any]]

PROSE = """\
The agent reads the failing test, looks at the parser and runs the tests again. I'll start by exploring \
the repository to understand how the code is organised, and then reproduce the problem with a small script \
before I change anything. The error message says that the index is out of range, which suggests that the \
loop runs one step too far when the list is empty. All tests pass now, so the fix is complete; I have also \
added a regression test for the empty case."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("model")
    write_tiny_model(made)
    return made


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def vocabulary(folder: Path) -> TokenizerVocabulary:
    opened = open_vocabulary(folder)
    assert opened is not None
    return opened


def render(tokenizer: Any, messages: Messages) -> str:
    text = tokenizer.apply_chat_template(messages, tools=TOOLS, tokenize=False, add_generation_prompt=True)
    assert isinstance(text, str)
    return text


def ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))


def test_english_has_about_four_characters_a_token(tokenizer: Any) -> None:
    assert 3.7 < len(PROSE) / len(ids(tokenizer, PROSE)) < 5.0
    sample = TextSource(0).sample()
    assert 3.3 < len(sample) / len(ids(tokenizer, sample)) < 5.0


@pytest.mark.parametrize(
    "text", [PROSE, '{"a": [1.50, null, "ü€🙂"], "id": 1234567890}', "\r\n\t x\n\n  y \0"]
)
def test_text_comes_back(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(ids(tokenizer, text)) == text


def test_all_readers_cut_alike(folder: Path, tokenizer: Any) -> None:
    """Transformers has a Qwen2 tokenizer of its own; scripted answers are measured with the file's."""
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = f"Don't 12345 e\u0301 (x)\n\n    def f():\r\n{GENERATION_PROMPT}\n<tool_call>\n hi<|im_end|>\n"
    assert ids(tokenizer, text) == plain.encode(text, add_special_tokens=False).ids


def test_filler_comes_back_token_by_token(tokenizer: Any, vocabulary: TokenizerVocabulary) -> None:
    assert len(set(vocabulary.words)) == WORDS >= 512
    drawn = Random(1).choices(vocabulary.words, k=5000)
    single = [ids(tokenizer, word) for word in drawn]
    assert all(len(each) == 1 for each in single)
    assert ids(tokenizer, "".join(drawn)) == [token for each in single for token in each]


ANSWERS = [
    "{}",
    '{"text": "Look."}',
    '{"text": "\\n\\n  indented\\n"}',
    '{"text": " \\t "}',
    '{"text": "e\\u0301 ü 🙂 12345"}',
    '{"text": "Look.", "tool": "bash", "args": {"command": "ls -la | head -20"}}',
    '{"tools": [{"name": "bash", "args": {"command": "echo ü \\"x\\""}}, {"name": "edit", "args": {}}]}',
    '{"text": "text\\n", "tool": "f", "args": {"a": [1, 2.5, null, {"b": "</tools>"}], "n": -10}}',
]


@pytest.mark.parametrize("written", ANSWERS)
@pytest.mark.parametrize("tokens", [0, 60, 61, 300])
def test_scripted_answers_have_the_length_that_was_asked_for(
    tokenizer: Any, vocabulary: TokenizerVocabulary, written: str, tokens: int
) -> None:
    answer = parse_answer(written)
    text = lengthened(answer, tokens, vocabulary, seed=tokens)
    least = len(ids(tokenizer, render_answer(answer.text, answer.calls)))
    assert len(ids(tokenizer, text)) == max(least, tokens - 1)


def test_histories_begin_with_the_tokens_of_prompts_and_answers(
    tokenizer: Any, vocabulary: TokenizerVocabulary
) -> None:
    """To the token, for whatever is answered, and with the answer as a client sends it back."""
    history = History(RequestOptions("m"))
    history.append({"role": "system", "content": "You are an agent."})
    history.add_input("Fix it.\n", is_from_user=True)
    before = prompt_of(tokenizer, history)
    for turn, written in enumerate(ANSWERS * 2):
        text = lengthened(parse_answer(written), 60, vocabulary, seed=turn)
        generated = ids(tokenizer, text)
        history.add_answer(as_client(tokenizer.decode(generated)))
        history.add_input(f"{turn}\n\n  result {'x' * turn}")
        after = prompt_of(tokenizer, history)
        assert after[: len(before) + len(generated)] == before + generated
        before = after


def prompt_of(tokenizer: Any, history: History) -> list[int]:
    messages = history_messages(history)
    for message in messages:
        for call in message.get("tool_calls", ()):
            # As vLLM does before the template sees it.
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return ids(tokenizer, render(tokenizer, messages))


def history_messages(history: History) -> Messages:
    from loadgen.workload import Turn

    messages: Messages = json.loads(history.body(Turn(1, 1), "x"))["messages"]
    return messages


def as_client(text: str) -> Answer:
    """As the hermes parser tells it to a streaming client."""
    content, *_ = text.split("<tool_call>", 1)
    calls = [json.loads(each) for each in re.findall(r"<tool_call>\n(.*?)\n</tool_call>", text, re.DOTALL)]
    tools = [
        CalledTool(f"id-{i}", call["name"], [json.dumps(call["arguments"], ensure_ascii=False)])
        for i, call in enumerate(calls)
    ]
    return Answer(text=[content], tools=tools, finish_reason="stop")


def test_arguments_written_in_another_style_come_back_changed(tokenizer: Any) -> None:
    """Of arguments vLLM keeps the meaning: a script that wants its prefixes found writes like json.dumps."""
    answer = ScriptedAnswer(tool="f", args=parse_answer('{"args": {"a":1}}').args)
    text = render_answer(answer.text, answer.calls)
    call = {"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
    rendered = render(tokenizer, [{"role": "assistant", "content": "", "tool_calls": [call]}])
    assert text not in rendered
    assert text.replace('{"a":1}', '{"a": 1}') in rendered


def test_a_long_prompt_is_cut_in_a_fraction_of_a_second(tokenizer: Any) -> None:
    """50,000 tokens take 60 to 160 ms; the bound is for a machine that is busy."""
    source = TextSource(0)
    messages = [{"role": "user", "content": source.message("s", i, 1000)} for i in range(46)]
    start_s = time.process_time()
    tokens = len(ids(tokenizer, render(tokenizer, messages)))
    assert tokens > 45_000
    assert time.process_time() - start_s < 5.0


def test_the_command_makes_a_folder_with_weights_that_never_change(tmp_path: Path) -> None:
    for name in ("a", "b"):
        made = make("make-model", str(tmp_path / name), "--weights", "--context-tokens", "4096")
        assert (made.returncode, made.stderr) == (0, "")
    first, second = tmp_path / "a", tmp_path / "b"
    assert sorted(path.name for path in first.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()
    assert json.loads((first / "config.json").read_text())["max_position_embeddings"] == 4096


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{folder}/m", "--context-tokens", "10"], "context_tokens is 10; allowed: 1024 or more"),
        (["{folder}/file"], "File exists"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "file").touch()
    made = make("make-model", *(each.format(folder=tmp_path) for each in arguments))
    assert made.returncode == 2
    assert words in made.stderr


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "backend_patch.emulator", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
