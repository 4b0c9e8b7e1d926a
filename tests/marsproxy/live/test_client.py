"""The terminal's side: views built from the feed, and what is printed of them."""

import io
import json

import httpx
import pytest
from rich.console import Console

from marsproxy.core.settings import ConfigError
from marsproxy.live import top, why_command
from marsproxy.live.client import TOKEN_ENV, NoAnswer, asking, story, views
from marsproxy.live.feed import INTERVAL_S
from marsproxy.live.routes import event
from marsproxy.live.why import why
from tests.marsproxy.live.playback import EPOCH_S, Playback


def streamed() -> tuple[Playback, httpx.MockTransport]:
    play = Playback("gpu", "silent")
    play.reading(kv_leased_tokens=2_000)
    play.feed.subscribe()
    first = play.feed.whole()
    for number in range(12):
        play.arrives(f"session{number}", prompt_tokens=9_000)
    play.now += INTERVAL_S
    changes = play.feed.changes_since(0) or []
    body = (
        event("snapshot", first) + b": still here\n\n" + b"".join(event("change", each) for each in changes)
    )
    log = play.watch.stories.get("session0")
    assert log is not None
    told = why("session0", log, play.policy.sessions.get("session0"), play.now, EPOCH_S + play.now)

    def answer(request: httpx.Request) -> httpx.Response:
        match request.url.path:
            case "/mars/v1/live":
                return httpx.Response(200, content=body)
            case "/mars/v1/sessions/session0/why":
                return httpx.Response(200, json=told)
        return httpx.Response(404)

    return play, httpx.MockTransport(answer)


def test_views_follow_the_feed() -> None:
    """And say when it ends."""
    play, transport = streamed()
    with asking("http://proxy", transport) as client:
        stream = views(client)
        assert next(stream)["sessions"] == {}
        view = next(stream)
        assert len(view["sessions"]) == 12
        assert view["held_total"] == len(play.policy.held) > 0
        with pytest.raises(NoAnswer, match="ended the stream"):
            next(stream)


def test_top_shows_a_view_with_its_unknowns() -> None:
    _, transport = streamed()
    with asking("http://proxy", transport) as client:
        stream = views(client)
        next(stream)
        view = next(stream)
    out = io.StringIO()
    Console(file=out, width=140).print(top.picture(view, 60))
    text = out.getvalue()
    for word in (
        "gpu",
        "silent (unknown)",
        "unknown",
        "because",
        "the KV budget has no room",
        "TTFT unknown",
    ):
        assert word in text, word
    assert "tool hosts: unknown" in text


def test_top_prints_once(capsys: pytest.CaptureFixture[str]) -> None:
    _, transport = streamed()
    assert top.run_top(url="http://proxy", once=True, transport=transport) == 0
    assert "MARS" in capsys.readouterr().out


def test_why_prints_words_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    _, transport = streamed()
    assert why_command.run_why("session0", url="http://proxy", as_json=False, transport=transport) == 0
    assert "Admitted as a new session" in capsys.readouterr().out
    assert why_command.run_why("session0", url="http://proxy", as_json=True, transport=transport) == 0
    assert json.loads(capsys.readouterr().out)["session"] == "session0"
    assert why_command.run_why("other", url="http://proxy", as_json=False, transport=transport) == 1
    assert "no such session" in capsys.readouterr().err


def test_what_goes_wrong_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="--url"):
        asking("proxy:8080")
    monkeypatch.setenv(TOKEN_ENV, "t")

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == "Bearer t"
        return httpx.Response(401)

    with (
        asking("http://proxy", httpx.MockTransport(answer)) as client,
        pytest.raises(NoAnswer, match="token"),
    ):
        story(client, "a")
