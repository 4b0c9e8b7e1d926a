"""Opens the report in a real Chromium, over its DevTools protocol, and looks at what it made of it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from loadgen.report import write_report
from tests.browser import opened

WriteRun = Callable[..., Path]

pytestmark = [pytest.mark.slow, pytest.mark.browser]

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


async def test_the_report_in_a_browser(tmp_path: Path, write_run: WriteRun) -> None:
    direct = write_run(tmp_path / "direct", label="direct", slowdown=2.0)
    mars = write_run(tmp_path / "mars", label="mars", is_proxy=True, fail_share=0.2)
    write_report([direct, mars], tmp_path / "report.html")
    async with opened((tmp_path / "report.html").as_uri(), tmp_path / "profile") as tab:
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
    async with opened(page.as_uri(), tmp_path / "profile") as tab:
        await tab.evaluate("1")
        assert len(tab.complaints) >= 1
