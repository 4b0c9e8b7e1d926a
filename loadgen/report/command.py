"""``loadgen report``: the report as a command."""

from pathlib import Path

from rich.console import Console

from loadgen.report.page import write_report
from loadgen.run_files import RunFilesError, find_run_dirs

DEFAULT_OUT = Path("report.html")


def report_command(*dirs: Path, out: Path = DEFAULT_OUT, title: str | None = None) -> int:
    """Draw runs as one self-contained HTML file, with the comparison as JSON beside it.

    Parameters
    ----------
    dirs
        Run directories, or directories that hold runs. Runs of one target under the same settings are
        its repeats; the others are compared to the target of the first directory.
    out
        The HTML file to write.
    title
        Title of the report; by default the names of the targets.
    """
    errors = Console(stderr=True)
    try:
        write_report(_all_runs(dirs), out, title)
    except (RunFilesError, OSError) as error:
        errors.print(f"loadgen report: {error}", markup=False, highlight=False, soft_wrap=True)
        return 2
    Console().print(f"report: {out}", markup=False, highlight=False, soft_wrap=True)
    return 0


def _all_runs(dirs: tuple[Path, ...]) -> list[Path]:
    if not dirs:
        raise RunFilesError("name at least one run directory")
    found: list[Path] = []
    for path in dirs:
        below = find_run_dirs(path)
        if not below:
            raise RunFilesError(f"{path}: no run here or below")
        found += below
    return list(dict.fromkeys(found))
