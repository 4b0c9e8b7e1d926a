"""What a Python file defines, read without running it: functions, classes, their members and parameters.

Owns reading the syntax tree, so that an installed package and one that is merely unpacked, of a release
that could not even be imported here, are looked at in the same way. It must not know what is looked for.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Signature:
    """Parameters of a function without ``self``."""

    parameters: tuple[str, ...]
    """Those that can be given by position, in order."""
    required: frozenset[str]
    """Those without a default, the ones that go by name only included."""
    is_abstract: bool = False

    def __str__(self) -> str:
        return f"({', '.join(self.parameters)})"


Outline = dict[str, Signature | None]
"""By dotted name (``Class.member``). None is anything that is not called: a class, an attribute."""


def read_outline(path: Path) -> Outline:
    """
    Raises:
        OSError: there is no such file.
        SyntaxError: it is not Python, or of a newer one.
    """
    outline: Outline = {}
    for node in ast.parse(path.read_bytes(), filename=str(path)).body:
        if isinstance(node, Function):
            outline[node.name] = signature(node, is_method=False)
        elif isinstance(node, ast.ClassDef):
            outline[node.name] = None
            outline.update((f"{node.name}.{name}", kind) for name, kind in members(node))
        else:
            outline.update((name, None) for name in assigned(node))
    return outline


def members(class_: ast.ClassDef) -> Iterator[tuple[str, Signature | None]]:
    """Attributes too: those of the class, and what its methods set on ``self``."""
    for node in class_.body:
        if isinstance(node, Function):
            yield from ((name, None) for name in set_on_self(node))
            is_attribute = bool({"property", "cached_property"} & decorators(node))
            is_method = "staticmethod" not in decorators(node)
            yield node.name, None if is_attribute else signature(node, is_method=is_method)
        else:
            yield from ((name, None) for name in assigned(node))


def signature(function: Function, *, is_method: bool) -> Signature:
    arguments = function.args
    positional = [each.arg for each in (*arguments.posonlyargs, *arguments.args)]
    optional = positional[len(positional) - len(arguments.defaults) :]
    by_name = (
        each.arg
        for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        if default is None
    )
    own = positional[1:] if is_method else positional
    required = frozenset({*own, *by_name} - set(optional))
    return Signature(tuple(own), required, is_abstract="abstractmethod" in decorators(function))


def set_on_self(method: Function) -> Iterator[str]:
    for node in ast.walk(method):
        match node:
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                yield name


def assigned(node: ast.stmt) -> Iterator[str]:
    """Names that a statement at the top of a file or a class gives a value or a type."""
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign):
        targets = [node.target]
    yield from (each.id for each in targets if isinstance(each, ast.Name))


def decorators(function: Function) -> set[str]:
    return {ast.unparse(each).rpartition(".")[2] for each in function.decorator_list}
