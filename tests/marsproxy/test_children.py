"""Programs beside the proxy: found ready, told apart when they fail, and always stopped."""

from pathlib import Path

import pytest

from marsproxy.children import Child, ChildFailed

STAYS = "\nimport time\ntime.sleep(600)"
PROGRAMS = {
    "good_child": "print('good ready on http://127.0.0.1:1', flush=True)" + STAYS,
    "chatty_child": "print('a line\\n' * 100 + 'ready on https://h:2', flush=True)" + STAYS,
    "broken_child": "print('no such thing', flush=True)\nraise SystemExit(3)",
}


@pytest.fixture(autouse=True)
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, source in PROGRAMS.items():
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.mark.parametrize(
    ("module", "url"), [("good_child", "http://127.0.0.1:1"), ("chatty_child", "https://h:2")]
)
async def test_a_child_says_where_it_listens(module: str, url: str) -> None:
    """On whichever line."""
    child = Child(module)
    assert await child.start() == url
    await child.stop()
    await child.stop()


async def test_a_child_that_ends_is_told_with_its_last_words() -> None:
    """They say why."""
    with pytest.raises(ChildFailed, match="broken_child --x ended: no such thing"):
        await Child("broken_child", "--x", "1").start()


async def test_a_child_that_never_was_can_be_stopped() -> None:
    """Whatever happened before."""
    child = Child("good_child")
    await child.stop()
    assert await child.start() == "http://127.0.0.1:1"
    await child.stop()
