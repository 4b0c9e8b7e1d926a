"""Where settings come from: file (TOML) < ``MARS_*`` environment < flags. Nothing unknown passes.

Owns the arguments of ``serve``, which cyclopts derives from the fields of ``marsproxy.config.Config``
(there is no second list). What cyclopts would let through is refused here: unknown names in the
environment, a value for a whole section, a fraction where a whole number belongs.
"""

import difflib
import os
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, ArgumentCollection, CycloptsError, Parameter
from cyclopts.config import Dict, Env

from marsproxy.config import Config, settings
from marsproxy.core.settings import ConfigError

ENV_PREFIX = "MARS_"
GATEWAY_ENV_PREFIX = "MARS_GATEWAY_"
"""Shared with the gateway and its clients: names in it that are no setting here are left to them."""

ConfigArgument = Annotated[Config, Parameter(name="*")]
"""Type of a command's parameter that takes every setting as a flag."""

FileArgument = Annotated[Path | None, Parameter(name="--config")]
"""Type of the parameter that names the TOML file."""


def config_sources() -> list[Any]:
    """For ``config=`` of a cyclopts app with a ``ConfigArgument`` and a ``FileArgument``."""
    return [settle_sections, StrictEnv(ENV_PREFIX, command=False), from_file, check_whole_numbers]


def read_config(flags: Sequence[str]) -> Config:
    """The configuration that these flags, the environment and the file together give."""
    app = App(config=config_sources(), default_parameter=Parameter(negative=()))

    @app.default
    def _read(*, tree: ConfigArgument = Config(), file: FileArgument = None) -> Config:  # noqa: B008
        return tree

    try:
        command, bound, _ = app.parse_args(list(flags), exit_on_error=False, print_error=False)
    except CycloptsError as error:
        raise ConfigError(str(error)) from error
    config: Config = command(*bound.args, **bound.kwargs)
    return config


def did_you_mean(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


class StrictEnv(Env):
    """``MARS_SECTION_KEY`` for every setting, ``MARS_CONFIG`` for the file."""

    def __call__(self, app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        known = {ENV_PREFIX + "_".join(setting.path).upper() for setting in settings()}
        known.add(ENV_PREFIX + "CONFIG")
        for name in sorted(os.environ):
            if name.startswith(ENV_PREFIX) and name not in known and not name.startswith(GATEWAY_ENV_PREFIX):
                raise ConfigError(f"{name}: no such setting in the environment{did_you_mean(name, known)}")
        super().__call__(app, commands, arguments)


def from_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Take in the TOML file that ``--config`` or ``MARS_CONFIG`` names."""
    tokens = arguments["--config"].tokens
    if not tokens:
        return
    path = Path(tokens[-1].value)
    tree = _read_toml(path)
    _check_names(tree, path)
    Dict(tree, source=str(path), use_commands_as_keys=False)(app, commands, arguments)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from error


def _check_names(tree: dict[str, Any], path: Path) -> None:
    """Names as the tree spells them, and a table exactly where there is a section."""
    keys_by_name: dict[str, list[str]] = {}
    for setting in settings():
        name, *key = setting.path
        keys_by_name.setdefault(name, []).extend(key)
    for name, value in tree.items():
        if name not in keys_by_name:
            raise ConfigError(f"{path}: {name}: no such setting{did_you_mean(name, keys_by_name)}")
        keys = keys_by_name[name]
        if isinstance(value, dict) != bool(keys):
            allowed = f"a table [{name}] with {', '.join(keys)}" if keys else "a value, not a table"
            raise ConfigError(f"{path}: {name}: wrong kind; allowed: {allowed}")
        for key in value if keys else ():
            if key not in keys:
                raise ConfigError(f"{path}: {name}.{key}: no such setting{did_you_mean(key, keys)}")


def settle_sections(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Give ``--gateway URL`` to ``gateway.url``; refuse a value for a section without such a short form."""
    for section in arguments:
        if not (section.keys and section.children):
            continue
        while section.tokens:
            token = section.tokens.pop()
            child = next((each for each in section.children if token.keyword in each.names), None)
            if child is None:
                allowed = ", ".join(each.names[0] for each in section.children)
                raise ConfigError(f"{token.keyword}: is a section; allowed: {allowed}")
            child.append(token)


def check_whole_numbers(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Refuse 3.7 for a number of something; cyclopts would round it."""
    for argument in arguments:
        if argument.hint in (int, int | None):
            for token in argument.tokens:
                if "." in token.value:
                    raise ConfigError(
                        f"{token.keyword}: {token.value} is not allowed; allowed: a whole number"
                    )
