"""``marsproxy why``: one session's story in a terminal."""

import json
import sys
from datetime import datetime
from typing import Any

import httpx
from rich.console import Console

from marsproxy.live.client import NoAnswer, asking, story

EXIT_NO_ANSWER = 1


def run_why(session: str, *, url: str, as_json: bool, transport: httpx.BaseTransport | None = None) -> int:
    """Returns the exit code; the story goes to stdout."""
    with asking(url, transport) as client:
        try:
            told = story(client, session)
        except NoAnswer as error:
            Console(stderr=True, highlight=False, soft_wrap=True, markup=False).print(
                f"marsproxy why: {error}"
            )
            return EXIT_NO_ANSWER
    if as_json:
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
    else:
        _print(told, Console(highlight=False, soft_wrap=True, markup=False))
    return 0


def _print(told: dict[str, Any], console: Console) -> None:
    console.print(told["summary"])
    for entry in told["story"]:
        at = datetime.fromisoformat(entry["at"]).astimezone()
        console.print(f"{at:%H:%M:%S}  {entry['words']}")
