"""A longer prompt begins with the segments of the shorter one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marsproxy.wire.prompts import (
    CHUNK_CHARS,
    CHUNK_TOKENS,
    MAX_SEGMENTS,
    prompt_count,
    prompt_digests,
    segments,
)

CHATML = "<|im_start|>system\nbe good<|im_end|>\n<|im_start|>user\nfix it<|im_end|>\n<|im_start|>assistant\n"
LLAMA = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nbe good<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nfix it<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)
GEMMA = "<bos><start_of_turn>user\nfix it<end_of_turn>\n<start_of_turn>model\n"
MISTRAL = "<s>[INST] be good. fix it [/INST]"
HARMONY = "<|start|>system<|message|>x<|end|><|start|>user<|message|>fix it<|end|><|start|>assistant"
DEEPSEEK = "<｜begin▁of▁sentence｜>be good<｜User｜>fix it<｜Assistant｜><think>\n"
REACT = "Answer the question.\nQuestion: how many?\nThought:"


@pytest.mark.parametrize("prompt", [CHATML, LLAMA, GEMMA, MISTRAL, HARMONY, DEEPSEEK, REACT])
@pytest.mark.parametrize("answer", ["I look.", "", "Action: ls\nObservation: a.py\nThought:"])
def test_the_whole_shorter_prompt_is_recognised(prompt: str, answer: str) -> None:
    before, after = prompt_digests(prompt), prompt_digests(prompt + answer + "<end>\n\nQuestion: and then?\n")
    assert len(before) >= 1
    assert after[: len(before)] == before


@pytest.mark.parametrize("prompt", [CHATML, LLAMA, GEMMA, MISTRAL, HARMONY, DEEPSEEK, REACT])
def test_another_task_is_another_prompt(prompt: str) -> None:
    other = prompt.replace("fix it", "break it").replace("how many", "how few")
    assert prompt_digests(prompt) != prompt_digests(other)


def test_only_an_invitation_is_left_out() -> None:
    assert segments(CHATML)[-1].startswith("<|im_start|>user")
    assert segments(REACT)[-1] == "\nQuestion: how many?"
    open_question = "Solve.\nQuestion: what is 2+2?"
    assert "".join(segments(open_question)) == open_question


def test_plain_text_is_cut_by_length() -> None:
    text = "x" * (3 * CHUNK_CHARS)
    assert len(prompt_digests(text)) == 3
    assert prompt_digests(text + "more")[:3] == prompt_digests(text)


def test_strings_lists_and_token_ids() -> None:
    assert prompt_digests([CHATML]) == prompt_digests(CHATML)
    tokens = list(range(3 * CHUNK_TOKENS))
    assert len(prompt_digests(tokens)) == 3
    assert prompt_digests([tokens]) == prompt_digests(tokens)
    assert prompt_digests([*tokens, 7, 8])[:3] == prompt_digests(tokens)
    assert len(prompt_digests(["a", "b", "c"])) == 3
    assert len(prompt_digests([[1, 2], [3]])) == 2


@pytest.mark.parametrize(
    ("prompt", "count"),
    [("x", 1), (["x"], 1), (["x", "y"], 2), ([1, 2], 1), ([[1], [2], [3]], 3), (None, 1), ([], 1)],
)
def test_prompts_in_a_request(prompt: object, count: int) -> None:
    assert prompt_count(prompt) == count


@pytest.mark.parametrize("prompt", [None, 5, {}, [], [-1], [2**70], True])
def test_what_is_no_prompt_has_no_segments(prompt: object) -> None:
    assert prompt_digests(prompt) == ()


def test_segments_are_bounded() -> None:
    assert len(segments("<|im_start|>user\n" * (2 * MAX_SEGMENTS))) <= MAX_SEGMENTS + 1


@given(st.text(alphabet="ab \n:<>|_[]/INSTim_startuserQuestion", max_size=200), st.text(max_size=50))
def test_cuts_depend_only_on_what_is_before_them(prompt: str, more: str) -> None:
    """All segments but the last, open one survive any continuation, as long as no mark is cut in two."""
    text = "\nQuestion: a\nThought:" + prompt
    before = segments(text + "\nObservation: x")
    after = segments(text + "\nObservation: x" + "\n\n" + more)
    kept = len(before) - 1
    assert after[:kept] == before[:kept]
