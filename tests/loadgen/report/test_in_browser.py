"""Opens the report in a real Chromium, over its DevTools protocol, and looks at what it made of it."""

import asyncio
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from loadgen.report import write_report

WriteRun = Callable[..., Path]

pytestmark = [pytest.mark.slow, pytest.mark.browser]

ANSWER_TIMEOUT_S = 60
"""Generous: a browser on a busy machine takes its time to start."""

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)

DRAWN_MARKS = """
[...document.querySelectorAll('figure svg')].map(svg =>
  [...svg.querySelectorAll('[class*="_marks"] path')].filter(mark => {
    const box = mark.getBoundingClientRect(), style = getComputedStyle(mark);
    const paint = style.stroke !== 'none' ? style.stroke : style.fill;
    return box.width > 0 && paint.startsWith('rgb(') && paint !== 'rgb(0, 0, 0)';
  }).length)
"""

PAINT_OF_TARGETS = """
[0, 1].map(index => getComputedStyle(
  document.querySelector(`[class*=" target_${index}_line_marks"] path`)).stroke)
"""

LABELS_THAT_OVERLAP = """
[...document.querySelectorAll('figure svg')].flatMap(svg => {
  const texts = [...svg.querySelectorAll('text')];
  const boxes = texts.map(text => [text.textContent, text.getBoundingClientRect()]);
  return boxes.flatMap(([a, one], index) => boxes.slice(index + 1)
    .filter(([, other]) => one.left < other.right - 1 && other.left < one.right - 1
      && one.top < other.bottom - 1 && other.top < one.bottom - 1)
    .map(([b]) => a + ' / ' + b));
})
"""

CURVES_OF_THE_FIRST_TARGET = """
[...document.querySelectorAll('[class*=" target_0_line_marks"]')].filter(g => g.getClientRects().length)
  .length
"""

SWITCH_THE_FIRST_TARGET = "document.querySelector('#show-0').click(), true"

WIDER_THAN_THE_WINDOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


class Tab:
    """One page of the browser: sends commands, collects what the page complains about."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._last_id = 0
        self.complaints: list[Any] = []

    async def command(self, method: str, **params: Any) -> Any:
        self._last_id += 1
        await self._socket.send_json({"id": self._last_id, "method": method, "params": params})
        while True:
            message = await self._receive()
            if message.get("id") == self._last_id:
                assert "error" not in message, message
                return message["result"]

    async def event(self, method: str) -> None:
        while (await self._receive()).get("method") != method:
            pass

    async def evaluate(self, expression: str) -> Any:
        answer = await self.command("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"]["value"]

    async def _receive(self) -> Any:
        message = await self._socket.receive_json(timeout=ANSWER_TIMEOUT_S)
        if message.get("method") in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            self.complaints.append(message["params"])
        return message


@asynccontextmanager
async def opened(page: Path, profile: Path) -> AsyncIterator[Tab]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert program, "these tests need Chromium: apt-get install chromium, or deselect them: -m 'not browser'"
    browser = await asyncio.create_subprocess_exec(
        program,
        *FLAGS,
        f"--user-data-dir={profile}",
        "about:blank",
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        port = await asyncio.wait_for(_devtools_port(browser), ANSWER_TIMEOUT_S)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            targets = await (await http.get("/json/list")).json()
            address = next(one["webSocketDebuggerUrl"] for one in targets if one["type"] == "page")
            async with http.ws_connect(address, max_msg_size=0) as socket:
                tab = Tab(socket)
                for domain in ("Page", "Log", "Runtime"):
                    await tab.command(f"{domain}.enable")
                await tab.command("Page.navigate", url=page.as_uri())
                await tab.event("Page.loadEventFired")
                yield tab
    finally:
        os.killpg(browser.pid, signal.SIGKILL)
        await browser.wait()


async def _devtools_port(browser: asyncio.subprocess.Process) -> int:
    """Chromium announces it on stderr, among other things."""
    assert browser.stderr is not None
    async for line in browser.stderr:
        if found := re.search(rb"DevTools listening on ws://127\.0\.0\.1:(\d+)/", line):
            return int(found[1])
    raise AssertionError("the browser ended without opening its DevTools")


async def test_the_report_in_a_browser(tmp_path: Path, write_run: WriteRun) -> None:
    direct = write_run(tmp_path / "direct", label="direct", slowdown=2.0)
    mars = write_run(tmp_path / "mars", label="mars", is_proxy=True, fail_share=0.2)
    write_report([direct, mars], tmp_path / "report.html")
    async with opened(tmp_path / "report.html", tmp_path / "profile") as tab:
        marks = await tab.evaluate(DRAWN_MARKS)
        assert len(marks) == 12
        assert min(marks) >= 1, "every plot shows something, in a colour of ours"
        assert min(marks[-2:]) > 60, "each lane is drawn"
        assert await tab.evaluate(LABELS_THAT_OVERLAP) == []

        light = await tab.evaluate(PAINT_OF_TARGETS)
        scheme = [{"name": "prefers-color-scheme", "value": "dark"}]
        await tab.command("Emulation.setEmulatedMedia", features=scheme)
        dark = await tab.evaluate(PAINT_OF_TARGETS)
        assert len({*light, *dark}) == 4, "two targets, told apart in either theme"

        assert await tab.evaluate(CURVES_OF_THE_FIRST_TARGET) > 0
        assert await tab.evaluate(SWITCH_THE_FIRST_TARGET)
        assert await tab.evaluate(CURVES_OF_THE_FIRST_TARGET) == 0, "the switch of a target hides its curves"

        for width in (1300, 700, 380):
            await tab.command(
                "Emulation.setDeviceMetricsOverride",
                width=width,
                height=900,
                deviceScaleFactor=1,
                mobile=False,
            )
            assert await tab.evaluate(WIDER_THAN_THE_WINDOW) == 0, width
        assert tab.complaints == []


async def test_the_browser_would_complain(tmp_path: Path) -> None:
    """The check for complaints above can fail: a page that breaks its own policy is heard."""
    page = tmp_path / "page.html"
    policy = "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'\">"
    page.write_text(f"<!doctype html>{policy}<script>alert(1)</script>")
    async with opened(page, tmp_path / "profile") as tab:
        await tab.evaluate("1")
        assert len(tab.complaints) >= 1
