"""A model folder that vLLM serves with random weights: small, made in a second, nothing downloaded.

The tokenizer is trained on the text below, byte by byte, so it can spell everything. The template is
ChatML with tools as Hermes writes them, which vLLM's ``hermes`` tool parser reads back.
"""

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

CONTEXT_TOKENS = 8192
VOCABULARY = 1024
"""Of the embedding; the tokenizer may have fewer."""

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
TOOL_TAGS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")

LAYERS = 12
"""A token takes a few milliseconds then. With two layers the engine makes tokens as fast as vLLM's API server
takes them, and on a busy machine that server then leaves other requests waiting for seconds."""

CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": CONTEXT_TOKENS,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "initializer_range": 0.02,
    "torch_dtype": "bfloat16",
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 0,
}

CHAT_TEMPLATE = """\
{%- macro turn(role, text) -%}
<|im_start|>{{ role }}
{{ text }}<|im_end|>
{% endmacro -%}
{%- if tools %}
{%- set signatures = tools | map('tojson') | join('\\n') %}
{%- set manner = '<tool_call>{"name": ..., "arguments": {...}}</tool_call>' %}
{{- turn('system', 'Call tools as ' + manner + '. Tools:\\n' + signatures) }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}
{{- turn('user', '<tool_response>\\n' + message.content + '\\n</tool_response>') }}
{%- elif message.tool_calls %}
{%- set calls = namespace(text=message.content or '') %}
{%- for call in message.tool_calls %}
{%- set arguments = call.function.arguments %}
{%- set arguments = arguments if arguments is string else arguments | tojson %}
{%- set call_text = '{"name": "' + call.function.name + '", "arguments": ' + arguments + '}' %}
{%- set calls.text = calls.text + '<tool_call>\\n' + call_text + '\\n</tool_call>' %}
{%- endfor %}
{{- turn('assistant', calls.text) }}
{%- else %}
{{- turn(message.role, message.content or '') }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}
"""

TEXT = """\
The agent reads the failing test, looks at the parser and runs the tests again.
{"name": "bash", "arguments": {"command": "pytest -q tests"}} {"path": "src/main.py"}
def read(path: str) -> str: return open(path, encoding="utf-8").read()
system user assistant tool function parameters properties required type object string
"""


def write_tiny_model(folder: Path) -> None:
    """Everything but weights: serve it with ``--load-format dummy``."""
    tokenizer = _trained_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    tokens = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": TURN_END, "pad_token": END_OF_TEXT}
    tokens |= {"model_max_length": CONTEXT_TOKENS, "clean_up_tokenization_spaces": False}
    _write_json(folder / "tokenizer_config.json", tokens | {"chat_template": CHAT_TEMPLATE})
    _write_json(folder / "config.json", CONFIG)
    _write_json(folder / "generation_config.json", {"eos_token_id": CONFIG["eos_token_id"]})


def _trained_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(TOOL_TAGS),
        special_tokens=[END_OF_TEXT, TURN_START, TURN_END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.add_tokens(list(TOOL_TAGS))  # not special: the tool parser has to see them in the text
    return tokenizer


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
