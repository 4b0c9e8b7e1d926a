"""Opens the live page in a real Chromium: what it shows, how it is used, and what an update costs it.

The pictures in docs/images are taken here, where ``MARS_DOCS_IMAGES`` names the folder to put them in.
"""

import asyncio
import os
import random
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from tests.browser import Tab, opened
from tests.marsproxy.live.stage import Stage, staged

pytestmark = [pytest.mark.slow, pytest.mark.browser]

CROWD = 2_000
FRAME_MS = 50
"""No update may keep the page from a frame for longer."""
UPDATES = 25
"""Five seconds of them."""
IMAGES_ENV = "MARS_DOCS_IMAGES"

SHOWN_STATE = """
[...document.querySelectorAll('#lane-scroll [role=option]')].find(
  option => !option.hidden && option.dataset.session === '%s'
)?.getAttribute('aria-label').split(',')[1].trim()
"""
TILE = "[...document.querySelectorAll('#tiles div')].find(tile => tile.firstChild.textContent === '%s')"
WIDER_THAN_THE_WINDOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
LANE_PIXELS = """
(() => { const canvas = document.querySelector('#canvas');
  const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  let drawn = 0; for (let i = 3; i < data.length; i += 4) drawn += data[i] > 0; return drawn; })()
"""
WATCH_UPDATES = """
(() => { window.seen = []; new PerformanceObserver(list => list.getEntries().forEach(
  ({name, duration}) => window.seen.push([name, duration]))).observe({type: 'measure'}); return true; })()
"""
SERIOUS_FAULTS = """
axe.run({resultTypes: ['violations']}).then(({violations}) => violations
  .filter(({impact}) => impact === 'serious' || impact === 'critical')
  .map(({id, nodes}) => [id, nodes.slice(0, 3).map(({html}) => html)]))
"""


def axe_source() -> str:
    return files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")


async def test_sessions_appear_wait_and_finish(tmp_path: Path) -> None:
    """And a click, or a key, opens a session's story."""
    stage = Stage(backends=("gpu-0",), pool_tokens=40_000)
    async with staged(stage), opened(f"{stage.url}/mars/", tmp_path) as tab:
        await tab.until("document.querySelector('#link-text').textContent === 'live'")
        first = [stage.arrive(f"agent-{number}", 1, 12_000) for number in range(2)]
        going, waiting = first[0].resolution.session_id, ""
        while not waiting:
            turn = stage.arrive(f"more-{len(first)}", 1, 12_000)
            first.append(turn)
            waiting = "" if turn.held is None else turn.resolution.session_id
        await tab.until(_state(going, "generating"))
        await tab.until(_state(waiting, "held"))
        row = await tab.until("document.querySelector('#held tr')?.textContent")
        assert "the KV budget has no room for it; it needs " in row
        assert await tab.evaluate(LANE_PIXELS) > 0

        await _story_by_click(tab, waiting)
        await _story_by_key(tab)

        stage.dispatcher.first_token(first[0])
        stage.answer(first[0], prompt_tokens=12_000, tool=None)
        stage.answer(first[1], prompt_tokens=12_000, tool="bash")
        await tab.until(_state(waiting, "generating"))
        await tab.until(_state(going, "at rest"))
        await tab.until(_state(first[1].resolution.session_id, "tool"))
        assert tab.complaints == []


async def test_what_is_unknown_is_called_so(tmp_path: Path) -> None:
    """Backends that say nothing show no number and no zero."""
    stage = Stage(backends=("silent",))
    stage.reads = False
    async with staged(stage), opened(f"{stage.url}/mars/", tmp_path) as tab:
        text = await tab.until("document.querySelector('#backends .row')?.textContent")
        assert "KV use unknown" in text
        assert "budget unknown" in text
        assert not any(character.isdigit() for character in text)
        assert "unknown" in await tab.evaluate(f"{TILE % 'TTFT now'}.textContent")
        assert (await tab.evaluate("document.querySelector('#hosts').textContent")).startswith("Unknown")


async def test_two_thousand_sessions_at_five_updates_a_second(tmp_path: Path, record_property: Any) -> None:
    """What an update takes to be taken in and drawn, as the page itself measures it."""
    chance = random.Random(1)
    stage = Stage(backends=("gpu-0", "gpu-1", "gpu-2", "gpu-3"), pool_tokens=8_000_000)
    async with staged(stage), asyncio.TaskGroup() as tasks:
        actors = [
            tasks.create_task(stage.act(f"agent-{n}", chance, turns=99, answer_s=6.0, gap_s=3.0))
            for n in range(CROWD)
        ]
        async with opened(f"{stage.url}/mars/", tmp_path) as tab:
            await tab.size(1360, 1000)
            await tab.until(f"document.querySelector('#sessions-count').textContent === '{CROWD}'")
            assert await tab.evaluate("document.querySelectorAll('#lane-scroll [role=option]').length") < 40
            await tab.evaluate(WATCH_UPDATES)
            await tab.until(f"window.seen.filter(([name]) => name === 'mars-apply').length >= {UPDATES}")
            seen = await tab.evaluate("window.seen")
            assert tab.complaints == []
        for actor in actors:
            actor.cancel()
    parts = ("mars-apply", "mars-draw", "mars-lanes")
    each = [sorted(ms for name, ms in seen if name == part) for part in parts]
    median_ms, worst_ms = sum(ms[len(ms) // 2] for ms in each), sum(ms[-1] for ms in each)
    record_property("update_ms", {"median": median_ms, "worst": worst_ms})
    print(f"an update and its frame: median {median_ms:.1f} ms, worst {worst_ms:.1f} ms")  # noqa: T201
    assert median_ms < FRAME_MS


async def test_axe_finds_nothing_serious(tmp_path: Path) -> None:
    """In either theme, with a story open, on both pages; and it finds what is made wrong."""
    async with staged(Stage()) as stage, _peopled(stage), opened(f"{stage.url}/mars/", tmp_path) as tab:
        await tab.until("document.querySelector('#decisions .id') !== null")
        await tab.evaluate(f"{axe_source()}; true")
        for scheme in ("light", "dark"):
            await tab.colours(scheme)
            assert await tab.evaluate(SERIOUS_FAULTS) == [], scheme
        await tab.evaluate("document.querySelector('#decisions .id').click(), true")
        await tab.until("document.querySelector('#story-events li') !== null")
        assert await tab.evaluate(SERIOUS_FAULTS) == []
        await tab.evaluate(
            "document.querySelector('#tiles').removeAttribute('id'), document.body.append("
            "document.createElement('input')), true"
        )
        assert [fault[0] for fault in await tab.evaluate(SERIOUS_FAULTS)] == ["label"]
        await tab.command("Page.navigate", url=f"{stage.url}/mars/what-if")
        await tab.event("Page.loadEventFired")
        await tab.evaluate(f"{axe_source()}; true")
        assert await tab.evaluate(SERIOUS_FAULTS) == []


async def test_it_fits_any_window_and_is_pictured(tmp_path: Path) -> None:
    async with staged(Stage()) as stage, _peopled(stage), opened(f"{stage.url}/mars/", tmp_path) as tab:
        folder = os.environ.get(IMAGES_ENV)
        await tab.until("document.querySelector('#held .id') !== null")
        await asyncio.sleep(100.0 if folder else 0.0)
        for width in (1360, 800, 380):
            await tab.size(width, 1000)
            assert await tab.evaluate(WIDER_THAN_THE_WINDOW) == 0, width
        if folder:
            await _pictures(tab, Path(folder))
        assert tab.complaints == []


async def _pictures(tab: Tab, folder: Path) -> None:
    for name, scheme, width, height in (
        ("live-light", "light", 1280, 1300),
        ("live-dark", "dark", 1280, 900),
        ("live-narrow", "light", 390, 1500),
    ):
        await tab.colours(scheme)
        await tab.size(width, height)
        await asyncio.sleep(1.0)
        (folder / f"{name}.png").write_bytes(await tab.picture())
    await tab.size(1280, 1000)
    await tab.evaluate(f"({LONGEST_STORY}).click(), true")
    await tab.until("document.querySelector('#story-events li') !== null")
    await asyncio.sleep(1.0)
    (folder / "live-story.png").write_bytes(await tab.picture())


LONGEST_STORY = """
[...document.querySelectorAll('#lane-scroll [role=option]')].find(
  option => / (tool|generating)$/.test(option.textContent))
"""
"""The first lanes are those of sessions that have been there for longest."""


class _peopled:  # noqa: N801 (used as a context manager)
    """Agents come and go."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._chance = random.Random(7)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> None:
        self._group = await asyncio.TaskGroup().__aenter__()
        self._tasks.append(self._group.create_task(self._come()))

    async def __aexit__(self, *problem: Any) -> None:
        for task in self._tasks:
            task.cancel()
        await self._group.__aexit__(None, None, None)

    async def _come(self) -> None:
        for number in range(1_000):
            turns = self._chance.randrange(3, 16)
            agent = self._stage.act(f"agent-{number}", self._chance, turns=turns, answer_s=2.5, gap_s=2.0)
            self._tasks.append(self._group.create_task(agent))
            await asyncio.sleep(0.02 if number < 28 else 1.9)


async def _story_by_click(tab: Tab, session: str) -> None:
    await tab.evaluate(f"document.querySelector('#held [title=\"{session}\"]').click(), true")
    story = await tab.until("document.querySelector('#story-events')?.textContent")
    assert "Held, number" in story
    assert await tab.evaluate("document.activeElement.id") == "story-title"
    await tab.press("Escape")
    assert await tab.evaluate("document.querySelector('#story').hidden")
    assert await tab.evaluate("document.activeElement.title") == session, "the focus is where it was"


async def _story_by_key(tab: Tab) -> None:
    await tab.evaluate("document.querySelector('#lane-scroll').focus(), true")
    await tab.press("End")
    chosen = await tab.evaluate("document.querySelector('[aria-selected=true]').dataset.session")
    await tab.press("Enter")
    assert await tab.evaluate("document.querySelector('#story-title').textContent") == f"Session {chosen}"
    await tab.press("Escape")
    assert await tab.evaluate("document.activeElement.id") == "lane-scroll"


def _state(session: str, word: str) -> str:
    return f"({SHOWN_STATE % session})?.startsWith({word!r})"
