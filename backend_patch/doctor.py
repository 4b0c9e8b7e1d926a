"""``python -m backend_patch.doctor``: would the patch work with this vLLM, in this environment?

Owns the findings, their words, and the exit code: 0 where every required hook fits, 1 where one does not
or the release is refused, 2 where there is no vLLM to look at. What hooks there are is ``contract``'s.
It reads files, the environment and the installed distributions' metadata, and imports nothing of vLLM.
"""

import os
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from itertools import groupby
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import App, Parameter
from rich.console import Console

from backend_patch import contract
from backend_patch.contract import BEST_EFFORT, SUPPORTED, NoVllm, Support
from backend_patch.protocol import Hook

EXIT_FITS = 0
EXIT_MISFIT = 1
EXIT_NO_VLLM = 2

ENDPOINT_GROUP = "vllm.endpoint_plugins"
PLUGIN_GROUPS = (
    ENDPOINT_GROUP,
    "vllm.general_plugins",
    "vllm.platform_plugins",
    "vllm.io_processor_plugins",
    "vllm.stat_logger_plugins",
)
"""All that ``VLLM_PLUGINS`` filters (vllm/plugins/__init__.py, 0.32)."""
PLUGIN = "mars"
EMULATOR = "mars_emulator"


class Finding(msgspec.Struct, frozen=True):
    """Something that would keep the patch from working, or from being reached, and what to do."""

    about: str
    found: str
    advice: str


class Report(msgspec.Struct, frozen=True):
    package: str
    vllm_version: str | None
    support: Support
    hooks: tuple[Hook, ...]
    findings: tuple[Finding, ...]

    @property
    def fits(self) -> bool:
        return not contract.missing(self.hooks) and self.support is not Support.REFUSED


def main() -> None:
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    code: int = build_app()(arguments, result_action="return_value")
    return code


def build_app() -> App:
    app = App(name="python -m backend_patch.doctor", version_flags=())
    app.default(doctor)
    return app


def doctor(
    *,
    vllm: Path | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> int:
    """Say which of the patch's hooks fit a vLLM, and what in this environment would keep it from loading.

    Parameters
    ----------
    vllm
        A folder with another vLLM, such as an unpacked wheel, instead of the installed one. It is not
        imported, and the environment is not looked at.
    as_json
        Print the report as JSON.
    """
    try:
        report = examine(unpacked(vllm)) if vllm else examine_installed(os.environ)
    except NoVllm as exc:
        sys.stderr.write(f"doctor: {exc}\n")
        return EXIT_NO_VLLM
    if as_json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        show(report, Console(highlight=False, markup=False, soft_wrap=True))
    return EXIT_FITS if report.fits else EXIT_MISFIT


def unpacked(folder: Path) -> Path:
    """The package itself, or what a wheel unpacks to."""
    for package in (folder, folder / "vllm"):
        if (package / contract.SCHEDULER).is_file():
            return package
    raise NoVllm(f"no vLLM in {folder}: there is no {contract.SCHEDULER}, nor a vllm/ with one")


def examine_installed(environment: Mapping[str, str]) -> Report:
    """
    Raises:
        NoVllm: none is installed.
    """
    report = examine(contract.installed_package())
    plugins = {group: {point.name for point in entry_points(group=group)} for group in PLUGIN_GROUPS}
    around = (*plugin_findings(plugins, environment.get("VLLM_PLUGINS")), *other_traps(environment))
    return msgspec.structs.replace(report, findings=(*report.findings, *around))


def examine(package: Path) -> Report:
    hooks = contract.check(package)
    version = contract.version_of(package)
    support = contract.support_of(version)
    findings = (*hook_findings(hooks), *support_findings(version, support))
    return Report(str(package), version, support, hooks, findings)


def hook_findings(hooks: tuple[Hook, ...]) -> list[Finding]:
    advice = {
        False: f"the patch steps aside and the engine serves as without it; {release_advice()}",
        True: "nothing, if you can do without it",
    }
    return [
        Finding(
            f"{'optional' if hook.is_optional else 'REQUIRED'} hook {hook.name}",
            hook.detail,
            advice[hook.is_optional],
        )
        for hook in hooks
        if not hook.fits
    ]


def support_findings(version: str | None, support: Support) -> list[Finding]:
    found = f"{version or 'unknown'} is {support}"
    match support:
        case Support.SUPPORTED:
            return []
        case Support.BEST_EFFORT:
            advice = f"expect it to work; the tests cover {dotted(SUPPORTED[0])} to {dotted(SUPPORTED[1])}"
        case Support.UNTRIED:
            advice = "the hooks above are all that was compared; try it beside a stock engine first"
        case Support.REFUSED:
            advice = f"{release_advice()}: there are no endpoint plugins before {dotted(BEST_EFFORT[0])}"
    return [Finding("vLLM's release", found, advice)]


def plugin_findings(plugins: Mapping[str, set[str]], allowlist: str | None) -> list[Finding]:
    """``allowlist`` is ``VLLM_PLUGINS`` as this process has it, which may not be as the server has it."""
    if PLUGIN not in plugins[ENDPOINT_GROUP]:
        advice = (
            "install marsproxy in vLLM's own Python environment; on PYTHONPATH alone it has no entry points"
        )
        return [Finding("plugin", f"no entry point {PLUGIN} in {ENDPOINT_GROUP}", advice)]
    advice = f"start vLLM with VLLM_PLUGINS={PLUGIN} (commas between names, no blanks)"
    if allowlist is None:
        return [Finding("VLLM_PLUGINS", "not set: vLLM loads no endpoint plugin that is not listed", advice)]
    listed = allowlist.split(",")
    findings = []
    if PLUGIN not in listed:
        findings.append(Finding("VLLM_PLUGINS", f"does not list {PLUGIN}: /v1/mars answers 404", advice))
    unlisted = sorted(set().union(*plugins.values()).difference(listed, {PLUGIN, EMULATOR}))
    if unlisted:
        found = f"leaves out {', '.join(unlisted)}: it filters the plugins of every kind"
        findings.append(Finding("VLLM_PLUGINS", found, "list those that you use"))
    return findings


def other_traps(environment: Mapping[str, str]) -> list[Finding]:
    findings = []
    if environment.get("VLLM_USE_RUST_FRONTEND", "0") != "0":
        found = "is set: the Rust front end loads no Python endpoint plugins"
        findings.append(
            Finding("VLLM_USE_RUST_FRONTEND", found, "unset it; leases and order work, /v1/mars does not")
        )
    if environment.get("VLLM_TARGET_DEVICE", "").lower() == "cpu":
        found = "is cpu: vLLM then ignores platform plugins and turns asynchronous scheduling off"
        findings.append(Finding("VLLM_TARGET_DEVICE", found, "unset it to run the emulated accelerator"))
    return findings


def show(report: Report, console: Console) -> None:
    version = report.vllm_version or "of unknown version"
    console.print(f"vLLM {version} ({report.support}) in {report.package}")
    fitting = [hook.name for hook in report.hooks if hook.fits]
    console.print(f"{len(fitting)} of {len(report.hooks)} hooks fit:")
    for owner, names in groupby(fitting, key=lambda name: name.rpartition(".")[0]):
        console.print(f"  {owner or 'functions'}: {', '.join(name.rpartition('.')[2] for name in names)}")
    for finding in report.findings:
        console.print(f"\n! {finding.about}: {finding.found}\n  -> {finding.advice}")
    missing = contract.missing(report.hooks)
    console.print()
    if report.fits:
        console.print("The patch fits.")
    elif missing:
        console.print(f"THE PATCH DOES NOT FIT: {', '.join(hook.name for hook in missing)}")
    else:
        console.print("THE PATCH DOES NOT FIT: this release of vLLM is too old")


def release_advice() -> str:
    return f"use vLLM {dotted(SUPPORTED[0])} to {dotted(SUPPORTED[1])}, or a MARS that knows this one"


def dotted(release: tuple[int, int]) -> str:
    return ".".join(map(str, release))


if __name__ == "__main__":
    main()
