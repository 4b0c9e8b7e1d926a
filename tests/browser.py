"""A real Chromium, driven over its DevTools protocol, and what a page complains about in it."""

import asyncio
import base64
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

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

    async def until(self, expression: str) -> Any:
        """Asks again and again, until it is something true."""
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            while not (value := await self.evaluate(expression)):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return value

    async def size(self, width: int, height: int) -> None:
        await self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    async def colours(self, scheme: str) -> None:
        """``light`` or ``dark``."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.command("Emulation.setEmulatedMedia", features=features)

    async def picture(self) -> bytes:
        """What is in sight, as PNG."""
        answer = await self.command("Page.captureScreenshot", format="png")
        return base64.b64decode(answer["data"])

    async def press(self, key: str) -> None:
        for kind in ("rawKeyDown", "keyUp"):
            codes = {"Enter": 13, "Escape": 27, "End": 35, "Home": 36, "ArrowDown": 40, "Tab": 9}
            await self.command(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key]
            )

    async def event(self, method: str) -> None:
        while (await self._receive()).get("method") != method:
            pass

    async def evaluate(self, expression: str) -> Any:
        answer = await self.command(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")  # undefined has none

    async def _receive(self) -> Any:
        message = await self._socket.receive_json(timeout=ANSWER_TIMEOUT_S)
        if message.get("method") in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            self.complaints.append(message["params"])
        return message


@asynccontextmanager
async def opened(url: str, profile: Path) -> AsyncIterator[Tab]:
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
                await tab.command("Page.navigate", url=url)
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
