"""A configuration as a commented TOML file, which gives the same configuration when it is read back.

Secrets are the exception: they are never written, only that they are set.
"""

import json
from functools import reduce
from itertools import groupby
from pathlib import Path
from textwrap import fill
from typing import Any

from docstring_parser import parse_from_object

from marsproxy.config import Config, Secret, Setting, StoreUrl, settings

COMMENT_WIDTH = 100


def to_toml(config: Config) -> str:
    """Every setting with its value and, above it, what it means and allows."""
    blocks: list[str] = []
    sections = groupby(settings(), key=lambda setting: setting.path[:-1])
    for section, members in sections:
        owner = reduce(getattr, section, config)
        docs = {each.arg_name: each.description or "" for each in parse_from_object(type(owner)).params}
        if section:
            blocks.append(f"[{'.'.join(section)}]")
        for setting in members:
            name = setting.path[-1]
            blocks.append(f"{_comment(setting, docs[name])}\n{_assignment(name, getattr(owner, name))}")
    return "\n\n".join(blocks) + "\n"


def _comment(setting: Setting, doc: str) -> str:
    text = " ".join(doc.split())
    if setting.allowed is not None:
        text += f" Allowed: {setting.allowed}."
    return fill(text, COMMENT_WIDTH, initial_indent="# ", subsequent_indent="# ")


def _assignment(name: str, value: Any) -> str:
    match value:
        case None:
            return f"# {name} is unset"
        case StoreUrl() if not value.has_password:
            return f"{name} = {json.dumps(value.reveal(), ensure_ascii=False)}"
        case Secret():
            return f"# {name} is set, and not shown"
        case Path():
            return f"{name} = {json.dumps(str(value), ensure_ascii=False)}"
        case _:  # what JSON writes for numbers, strings, booleans and lists of strings is TOML
            return f"{name} = {json.dumps(value, ensure_ascii=False)}"
