"""What a source file defines, without running it."""

from pathlib import Path

import pytest

from backend_patch.outline import Outline, Signature, read_outline

SOURCE = """
import nothing_of_this_name
GROUP = "a"
LIMIT: int = 3

def free(key, *, by_name, has_default=1, **more): ...

class Queue:
    size: int = 0
    FIRST, SECOND = 1, 2
    slots = None

    def __init__(self, a, b=None, *c):
        self.items = []
        self.typed: int = 3
        if a:
            self.deep = other.attribute = 1

    async def pop(self, request, /, count=1): ...

    @property
    def is_empty(self): ...

    @functools.cached_property
    def total(self): ...

    @staticmethod
    def of(name): ...

    @classmethod
    def make(cls, name): ...
"""


@pytest.fixture
def outline(tmp_path: Path) -> Outline:
    path = tmp_path / "source.py"
    path.write_text(SOURCE)
    return read_outline(path)


def test_names(outline: Outline) -> None:
    """Imports and other objects' attributes are not its own; a method's nested ones are."""
    attributes = {name for name, kind in outline.items() if kind is None}
    own = {"size", "slots", "items", "typed", "deep", "is_empty", "total"}
    assert attributes == {"GROUP", "LIMIT", "Queue", *(f"Queue.{name}" for name in own)}


@pytest.mark.parametrize(
    ("name", "parameters", "required"),
    [
        ("free", ("key",), {"key", "by_name"}),
        ("Queue.__init__", ("a", "b"), {"a"}),
        ("Queue.pop", ("request", "count"), {"request"}),
        ("Queue.of", ("name",), {"name"}),
        ("Queue.make", ("name",), {"name"}),
    ],
)
def test_parameters(outline: Outline, name: str, parameters: tuple[str, ...], required: set[str]) -> None:
    """Without self and cls; what must be given, by name too."""
    assert outline[name] == Signature(parameters, frozenset(required))


def test_what_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    with pytest.raises(FileNotFoundError):
        read_outline(path)
    path.write_text("def f(:")
    with pytest.raises(SyntaxError):
        read_outline(path)
