"""What the tiny model's tokenizer learns from: Python's own documentation and sources, and what agents write.

The standard library is the one large English text that every machine with Python has. Which words it
teaches differs a little from one Python version to the next; what is below is always learned.
"""

import sysconfig
from collections.abc import Iterator
from pathlib import Path

LIBRARY_FILES = (
    "pydoc_data/topics.py",  # half of the text: the language reference, in prose
    "argparse.py",
    "http/client.py",
    "json/decoder.py",
    "logging/__init__.py",
    "pathlib.py",
    "subprocess.py",
    "tarfile.py",
    "typing.py",
    "unittest/case.py",
)
"""Those that a distribution has left out are passed over."""

AGENT_TEXT = """\
The agent reads the failing test, looks at the parser and runs the tests again. Let me look at the file first.
I will start with the structure of the repository, then reproduce the problem with a small script.
You are a coding agent. Run a command in the workspace. The tool result says that the command was run.
{"name": "bash", "arguments": {"command": "cd /workspace && python -m pytest -q tests/test_main.py"}}
{"type": "function", "function": {"name": "bash", "description": "Run", "parameters": {"type": "object"}}}
{"properties": {"path": {"type": "string"}, "content": {"type": "string"}}, "required": ["path", "content"]}
cd /workspace/repo && git diff --stat && git status --short && git log --oneline | head -20
grep -rn "def main" --include=*.py src | head; sed -n '1,120p' src/main.py; find . -name "*.py" | xargs wc -l
pip install -e . 2>&1 | tail -5; ls -la /tmp; cat > /tmp/script.py << 'EOF'
error test file line value return import class name data list dict index key result expected actual assert
module function argument object call stack trace request response session token cache block queue worker build
install version package config option default set get update delete create read write open close first last
system user assistant tool next before after between from where when which while each every some other only
"""
AGENT_WEIGHT = 50
"""Times that it is repeated: its words become tokens of their own beside a megabyte of library."""


def training_lines() -> Iterator[str]:
    library = Path(sysconfig.get_path("stdlib"))
    for name in LIBRARY_FILES:
        if (path := library / name).is_file():
            yield from path.read_text("utf-8").splitlines(keepends=True)
    yield from AGENT_TEXT.splitlines(keepends=True) * AGENT_WEIGHT
