"""What the pages say is so: command lines parse, links resolve, names exist, generated parts are current."""

import contextlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
from cyclopts import App

import gateway.__main__
import loadgen.__main__
import marsproxy.__main__
from backend_patch import doctor
from backend_patch.emulator.__main__ import emulator_app
from backend_patch.protocol import XArg
from backend_patch.script import Match, ScriptedAnswer, ScriptLine
from docs.generate import CORE, PARTS, constants_of, generated, policy_modules
from gateway.app import make_app
from gateway.config import ENV_PREFIX as GATEWAY_ENV_PREFIX
from gateway.config import PROXY_TOKEN_ENV, TOKEN_ENV, TOKENS_ENV, URL_ENV, setting_names
from gateway.protocol import ExecState
from gateway.shims import docker_words
from loadgen.profiles import profile_names
from loadgen.records import GaugeSample, SessionRecord, TurnRecord
from loadgen.summary import summarise
from marsproxy.app import OWN_PATHS
from marsproxy.config import Config, settings
from marsproxy.config_sources import ENV_PREFIX
from marsproxy.config_toml import to_toml
from marsproxy.core.commands import Command, Reason, Reprioritise
from marsproxy.core.events import Ending, Event
from marsproxy.core.evidence import Level, TurnKind
from marsproxy.core.log_format import ENTRY_TYPES
from marsproxy.core.policies import POLICIES
from marsproxy.core.priority import TurnClass
from marsproxy.core.sessions import Phase

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "marsproxy/DESIGN.md", *ROOT.glob("docs/*.md")]
)
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))

APPS: dict[str, App] = {
    "marsproxy": marsproxy.__main__.build_app(),
    "mars-gateway": gateway.__main__.build_app(),
    "loadgen": loadgen.__main__.build_app(),
    "backend_patch.emulator": emulator_app,
}
OTHER_PROGRAMS = {
    "git",
    "cd",
    ".",
    "export",
    "vllm",
    "curl",
    "mini",
    "codex",
    "claude",
    "make",
    "tar",
    "vllm.entrypoints.openai.api_server",
}
SCRIPTS = {"tests/gpu/step_times.py"}
OTHERS_OPTIONS = {
    "--scheduling-policy",
    "--enable-prompt-tokens-details",
    "--scheduler-cls",
    "--additional-config",
    "--kv-offloading-size",
    "--api-key",
    "--environment-class",
    "--disable",
    "--transport",
}
"""Flags of vLLM and of agent frameworks that the pages speak of."""
NO_METRICS = {"mars_answer", "mars_output_tokens", *XArg}
"""Fields of requests and records that begin like one."""
HISTOGRAM_ENDINGS = ("_bucket", "_sum", "_count")


def text_of(page: Path | str) -> str:
    return (ROOT / page).read_text("utf-8")


def console_lines(page: Path) -> Iterator[str]:
    """What is typed at a prompt, continued lines joined."""
    for block in re.findall(r"^```console\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                yield line[2:]


def commands_in(line: str) -> Iterator[list[str]]:
    """Each program with its arguments; comments, variables in front and redirections left out."""
    for part in " ".join(shlex.quote(word) for word in shlex.split(line, comments=True)).split(" '&&' "):
        words = shlex.split(part)
        while re.fullmatch(r"[A-Z_]+=.*", words[0]):
            del words[0]
        if words[0] == "python":
            del words[: 2 if words[1] == "-m" else 1]
        yield words[: words.index(">")] if ">" in words else words


COMMANDS = [words for page in PAGES for line in console_lines(page) for words in commands_in(line)]
OURS = [words for words in COMMANDS if words[0] in APPS]


def options_of(app: App) -> set[str]:
    return {name for argument in app.assemble_argument_collection() for name in argument.names}


@cache
def all_options() -> frozenset[str]:
    """Of all commands of all programs, with those that every program has."""
    found = {"--help", "--version"}
    for app in APPS.values():
        for name in app.resolved_commands():
            if not name.startswith("-"):
                found |= options_of(app[name])
    forms = (docker_words.RUN, docker_words.EXEC, docker_words.STOP, docker_words.PS)
    found |= {f"--{name}" for form in forms for name in form.options}
    return frozenset(found | options_of(doctor.build_app()))


@cache
def metric_names() -> frozenset[str]:
    tables = PARTS["proxy-metrics"]() + PARTS["gateway-metrics"]()
    return frozenset(re.findall(r"^\| `([a-z_]+)`", tables, re.MULTILINE))


def anchors_of(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_there_is_something_to_check() -> None:
    """Patterns that match nothing would let everything pass."""
    assert {words[0] for words in OURS} == set(APPS)
    assert len(OURS) > 10
    assert {"--scheduling-policy", "--rate", "--listen.port", "--no-stream"} <= all_options()
    assert {"mars_turns_total", "mars_gateway_execs_total"} <= metric_names()
    assert "kinds-of-turns" in anchors_of(ROOT / "docs/identity.md")


def test_every_program_is_known() -> None:
    """A misspelt name of ours would pass for a stranger's."""
    assert {words[0] for words in COMMANDS} - set(APPS) <= OTHER_PROGRAMS | SCRIPTS
    assert all((ROOT / script).exists() for script in SCRIPTS)


@pytest.mark.parametrize("words", OURS, ids=shlex.join)
def test_command_lines_parse(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real command line interfaces; nothing is run."""
    monkeypatch.chdir(tmp_path)
    for name in ("MARS_CONFIG", "MARS_BACKENDS", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "mars.toml").write_text(to_toml(Config()))
    program, *arguments = words
    command, _, _ = APPS[program].parse_args(arguments, exit_on_error=False, print_error=False)
    # Of a command that does not exist, the program's help is what is left.
    assert command.__module__.split(".")[0] in ("marsproxy", "gateway", "loadgen", "backend_patch")


@pytest.mark.parametrize("program", sorted(APPS))
def test_every_command_says_what_it_does(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In the list that a new user sees first."""
    app = APPS[program]
    app.help_print([])
    listed = capsys.readouterr().out
    names = [name for name in app.resolved_commands() if not name.startswith("-")]
    assert names
    for name in names:
        assert re.search(rf"\b{name}\s+[A-Z]", listed), name


@cache
def shim_variables() -> frozenset[str]:
    """They have no table of settings: each module reads its own, by these names."""
    sources = (path.read_text() for path in (ROOT / "gateway/shims").glob("*.py"))
    return frozenset(re.findall(r'"(MARS_[A-Z_]+)"', "".join(sources)))


def test_variables_of_shims_are_told_of() -> None:
    told = text_of(ROOT / "docs/shims.md")
    assert {each for each in shim_variables() if each not in told} == {
        "MARS_EXEC_ID"
    }  # The host agent's own.


@every_page
def test_options_exist(page: Path) -> None:
    """Also where one is only spoken of."""
    named = set(re.findall(r"`(?:[a-z-]+ )*(--[a-z][a-z.-]*)", text_of(page)))
    assert named - all_options() - OTHERS_OPTIONS == set()


@every_page
def test_links_resolve(page: Path) -> None:
    """To files of the repository, and to headings in them."""
    for target in re.findall(r"\]\((?!https?://)([^)]+)\)", text_of(page)):
        name, _, anchor = target.partition("#")
        linked = page.parent / name if name else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors_of(linked), target


@every_page
def test_metrics_exist(page: Path) -> None:
    """By the names that a scraper sees."""
    known = metric_names() | {name + ending for name in metric_names() for ending in HISTOGRAM_ENDINGS}
    named = set(re.findall(r"\bmars_[a-z_]*[a-z]\b", text_of(page)))
    assert named - known - POLICIES.keys() <= NO_METRICS


@every_page
def test_settings_exist(page: Path) -> None:
    """Keys and environment variables."""
    keys = {setting.key for setting in settings()}
    sections = "|".join({key.partition(".")[0] for key in keys if "." in key})
    assert set(re.findall(rf"`((?:{sections})\.(?!jsonl`)[a-z_]+)`", text_of(page))) <= keys
    variables = {ENV_PREFIX + key.replace(".", "_").upper() for key in keys} | {"MARS_CONFIG"}
    variables |= {GATEWAY_ENV_PREFIX + name.upper() for name in setting_names()}
    variables |= {PROXY_TOKEN_ENV, TOKEN_ENV, TOKENS_ENV, URL_ENV} | shim_variables()
    assert set(re.findall(r"\bMARS_[A-Z_]*[A-Z]\b", text_of(page))) <= variables


@every_page
def test_make_targets_exist(page: Path) -> None:
    named = set(re.findall(r"(?:`|\$ )make ([a-z-]+)", text_of(page)))
    assert named <= set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))


@every_page
def test_generated_parts_are_current(page: Path) -> None:
    """``make docs`` brings them up to date."""
    text = text_of(page)
    assert generated(text) == text


def test_every_part_is_generated_somewhere() -> None:
    """A marker that is misspelt would leave its part behind."""
    marked = [name for page in PAGES for name in re.findall(r"<!-- generated: (.+?) -->", text_of(page))]
    assert sorted(marked) == sorted(PARTS)


def test_every_constant_of_the_policy_says_why() -> None:
    """Where it is from, or that it was chosen."""
    sources = [(CORE / f"{module}.py").read_text("utf-8") for module in policy_modules()]
    reasons = {name: text for source in sources for name, _, text in constants_of(source)}
    assert {"MEMORY_PRICE", "DELAY_S", "GAP_PRIOR"} <= reasons.keys()
    assert [name for name, text in reasons.items() if not text] == []


VOCABULARY = {
    "docs/http-api.md": [
        *OWN_PATHS,
        *(reason.value for reason in Reason),
        *(turn_class.value for turn_class in TurnClass),
        *(phase.value for phase in Phase),
    ],
    "docs/metrics.md": [
        *(kind.value for kind in TurnKind),
        *(ending.value for ending in Ending),
        *(level.name.lower() for level in Level),
        *(phase.value for phase in Phase),
    ],
    "docs/identity.md": [*(level.name.lower() for level in Level), *(kind.value for kind in TurnKind)],
    "docs/gateway.md": [state.value for state in ExecState],
    "docs/event-log.md": list(ENTRY_TYPES),
    "docs/policy.md": [kind.__name__ for kind in get_args(Event | Command) if kind is not Reprioritise],
    "docs/load-generator.md": [
        *TurnRecord.__struct_fields__,
        *SessionRecord.__struct_fields__,
        *GaugeSample.__struct_fields__,
        *(summarise((), (), {}).keys() - {"policy", "workload", "seed", "hardware", "commit"}),
        *profile_names(),
    ],
    "docs/engine.md": [
        *(set(ScriptLine.__struct_fields__) | set(Match.__struct_fields__)),
        *ScriptedAnswer.__struct_fields__,
    ],
}
"""Words of the code that a page must explain, each in code style."""


# Sorted: workers that share the tests must all find them in one order.
@pytest.mark.parametrize(
    ("page", "word"), [(page, word) for page, words in VOCABULARY.items() for word in sorted(set(words))]
)
def test_a_word_of_the_code_is_explained(page: str, word: str) -> None:
    """New phases, reasons, fields and kinds find their way into the pages."""
    assert f"`{word}`" in text_of(page)


def test_session_headers_are_those_that_are_read() -> None:
    """All that identity reads is in its page or the API's, and the page names none that is not read."""
    read = set(re.findall(r'b"(x-[a-z-]+)"', text_of("marsproxy/wire/session_ids.py")))
    named = set(re.findall(r"`(X-[A-Za-z-]+)", text_of("docs/identity.md")))
    elsewhere = set(re.findall(r"`(X-[A-Za-z-]+)", text_of("docs/http-api.md")))
    assert read
    assert {name.lower() for name in named} <= read
    assert read <= {name.lower() for name in named | elsewhere}


def test_error_codes_are_those_that_are_sent() -> None:
    """Each code in the table of errors is a word of the proxy."""
    rows = re.findall(r"^\| \d{3} \| (`[^|]+`) \|", text_of("docs/http-api.md"), re.MULTILINE)
    codes = {code for row in rows for code in re.findall(r"`([a-z_]+)`", row)}
    sent = set(re.findall(r'"([a-z_]+)"', text_of("marsproxy/errors.py"))) | {
        reason.value for reason in Reason
    }
    assert {"queue_full", "backend_unreachable", "not_http"} <= codes <= sent


def test_gateway_routes_are_those_that_are_served() -> None:
    """Every path of the OpenAPI document is in the table."""
    page = text_of("docs/gateway.md")
    paths = make_app(_never_opened).openapi()["paths"]
    assert paths
    for path in paths:
        assert path.replace("{exec_id}", "<id>").replace("{", "<").replace("}", ">") in page


def block(page: str, language: str) -> str:
    """The first block of code in that language."""
    found = re.search(rf"^```{language}\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[str]:
    """One of the servers as a process; yields the URL of its ready line."""
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


@pytest.mark.slow
def test_the_first_agent_runs_as_its_page_says(tmp_path: Path) -> None:
    """Script, servers and agent are taken from the page; only the ports are others."""
    page = "docs/first-agent.md"
    script = tmp_path / "script.jsonl"
    script.write_text(block(page, "json"))
    with (
        serving("loadgen", "engine", "--port", "0", "--script", str(script)) as engine,
        serving("marsproxy", "serve", "--port", "0", "--backend", engine) as proxy,
        serving("gateway", "serve", "--port", "0", "--proxy", proxy) as gateway_url,
    ):
        done = subprocess.run(
            [sys.executable, "-c", block(page, "python")],
            env=os.environ | {"OPENAI_BASE_URL": f"{proxy}/v1", "MARS_GATEWAY_URL": gateway_url},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    *turns, answer = done.stdout.splitlines()
    assert [line.split()[1:] for line in turns] == [
        ["1", "new"],
        ["2", "continuation"],
        ["3", "continuation"],
    ]
    assert len({line.split()[0] for line in turns}) == 1
    assert answer == "There are 2."


def _never_opened() -> None:
    raise AssertionError("the document is made without a gateway")
