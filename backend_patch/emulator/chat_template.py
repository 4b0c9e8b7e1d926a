"""The tiny model's chat template: ChatML, with tools as Hermes models have them.

The rendered history of a conversation begins with the prompt of its last turn and the very text that was
generated for it, so that vLLM finds all of it in its prefix cache. That takes three things: nothing
depends on messages that come later, nothing is trimmed or added around an answer, and calls are written
as ``markup.render_answer`` writes them. vLLM parses the arguments that a client sends back before the
template sees them, so of those only the meaning is left; they come back in the very characters where
the model wrote them as ``json.dumps(arguments, ensure_ascii=False)`` does, as models do.
"""

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
GENERATION_PROMPT = f"{TURN_START}assistant\n"
TOOL_TAGS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")

CHAT_TEMPLATE = """\
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content or '' %}
    {%- set said = messages[1:] %}
{%- else %}
    {%- set system = '' %}
    {%- set said = messages %}
{%- endif %}
{%- if tools %}
    {%- set signatures = tools | map('tojson') | join('\\n') %}
    {%- set system = system + ('\\n\\n' if system else '')
        + '# Tools\\n\\nYou may call one or more of these functions:\\n<tools>\\n' + signatures
        + '\\n</tools>\\n\\nFor each call, write a JSON object with its name and arguments:\\n'
        + '<tool_call>\\n{"name": ..., "arguments": {...}}\\n</tool_call>' %}
{%- endif %}
{%- if system %}
    {{- '<|im_start|>system\\n' + system + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in said %}
    {%- if message.role == 'tool' %}
        {{- '<|im_start|>user\\n' if loop.first or loop.previtem.role != 'tool' else '\\n' }}
        {{- '<tool_response>\\n' + (message.content or '') + '\\n</tool_response>' }}
        {{- '<|im_end|>\\n' if loop.last or loop.nextitem.role != 'tool' else '' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + (message.content or '') }}
        {%- for call in message.tool_calls or [] %}
            {%- set arguments = call.function.arguments %}
            {{- '' if loop.first else '\\n' }}
            {{- '<tool_call>\\n{"name": ' + call.function.name | tojson + ', "arguments": ' }}
            {{- arguments if arguments is string else arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
