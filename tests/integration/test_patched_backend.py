"""The proxy in front of a backend that has the patch, loses it or lacks it: what goes over the wire."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest

from backend_patch.protocol import (
    BATCH_PATH,
    CAPABILITIES_PATH,
    HEADROOM_PATH,
    PROTOCOL,
    Capabilities,
    Ending,
    KvOp,
    KvRequest,
    LeaseEnding,
)
from marsproxy.config import Backend, ConfigError, Secret
from marsproxy.patch import HeadroomSource, PatchState
from tests.integration.patched_backend import PATCH, PatchedBackend, patched_backend, rank
from tests.integration.running import RunningProxy, ask, chat, client_of, running_proxy

QUICK = Backend(headroom_interval_s=0.02, telemetry_interval_s=0.05)
HEADERS = {"x-mars-session": "mine", "content-type": "application/json"}


@asynccontextmanager
async def both(
    policy: str = "mars", backend: Backend = QUICK, **settings: Any
) -> AsyncIterator[tuple[PatchedBackend, RunningProxy, httpx.AsyncClient]]:
    async with (
        patched_backend(**settings) as behind,
        running_proxy(behind.url, policy=policy, backend=backend) as proxy,
        client_of(proxy.url) as client,
    ):
        yield behind, proxy, client


def metric(proxy: RunningProxy, name: str, **labels: str) -> float:
    """The sum of all samples that have these labels."""
    page = proxy.proxy.metrics.render()[1].decode()
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    lines = [line for line in page.splitlines() if line.startswith(name)]
    return sum(float(line.split()[-1]) for line in lines if all(part in line for part in wanted))


async def take_turn(client: httpx.AsyncClient, body: bytes | None = None, **headers: str) -> str:
    """Returns our id of the session."""
    content = json.dumps(chat()).encode() if body is None else body
    seen = await ask(client, "POST", "/v1/chat/completions", content=content, headers=HEADERS | headers)
    assert seen.status == 200
    return str(seen.headers["x-mars-session"])


async def test_a_turn_says_whose_it_is_in_its_body() -> None:
    """In front of what the client sent, of which not a byte changes."""
    async with both() as (behind, _, client):
        sent = b'{ "model": "m",  "messages": [{"role": "user", "content": "\\u00e9"}] }'
        session = await take_turn(client, sent)
    [body] = behind.bodies
    xargs = msgspec.json.decode(body)["vllm_xargs"]
    assert xargs["mars_session"] == session
    assert xargs["mars_class"] in ("new", "continuation")
    assert body == b'{"vllm_xargs":' + msgspec.json.encode(xargs) + b"," + sent[1:]


async def test_what_the_client_says_itself_stands() -> None:
    """Its own members are kept, ours added."""
    async with both() as (behind, _, client):
        await take_turn(client, b'{"vllm_xargs":{"mars_session":"theirs","k":1},"messages":[]}')
    xargs = msgspec.json.decode(behind.bodies[0])["vllm_xargs"]
    assert (xargs["mars_session"], xargs["k"], "mars_class" in xargs) == ("theirs", 1, True)


@pytest.mark.parametrize(
    "capabilities",
    [
        None,
        msgspec.structs.replace(PATCH, passthrough="contract"),
        msgspec.structs.replace(PATCH, protocol=PROTOCOL + 1),
    ],
    ids=["stock", "passthrough", "newer"],
)
async def test_without_a_patch_that_works_nothing_is_different(capabilities: Capabilities | None) -> None:
    """The same bytes, headroom from its metrics, no hints."""
    async with both(capabilities=capabilities) as (behind, proxy, client):
        sent = json.dumps(chat()).encode()
        await client.delete(f"/mars/v1/sessions/{await take_turn(client, sent)}")
        [state] = proxy.proxy.dispatcher.policy.backends.values()
        assert (state.takes_hints, state.kv_tokens_total) == (False, 16_000)
    assert behind.bodies == [sent]
    assert behind.asked(HEADROOM_PATH) == behind.asked(BATCH_PATH) == 0
    assert behind.asked(CAPABILITIES_PATH) == 1


async def test_headroom_comes_from_the_patch() -> None:
    """And not from the page beside it."""
    async with both(rank=rank(free_blocks=500, leased_blocks=250)) as (behind, proxy, client):
        await proxy.until(lambda: behind.asked(HEADROOM_PATH) > 5)
        [state] = proxy.proxy.dispatcher.policy.backends.values()
        shown = (await client.get("/readyz")).json()["backends"][behind.url]
        assert metric(proxy, "mars_backend_leased_tokens") == 4000
    assert (state.takes_hints, state.kv_tokens_total) == (True, 16_000)
    assert behind.asked("/metrics") == 0
    assert shown["patch"] == {"state": "working", "why": None, "version": "0.1", "vllm_version": "0.32.0"}
    assert shown["headroom"]["source"] == "patch"


async def test_a_failing_headroom_is_replaced_at_once() -> None:
    """Until it is back; the patch goes on taking hints meanwhile, for it says that it does."""
    async with both() as (behind, proxy, _):
        [state] = proxy.proxy.dispatcher.policy.backends.values()
        behind.failing.add(HEADROOM_PATH)
        await proxy.until(lambda: behind.asked("/metrics") > 2)
        assert metric(proxy, "mars_backend_headroom_source", source="metrics") == 1
        assert (state.is_reachable, state.takes_hints) == (True, True)
        assert behind.asked(CAPABILITIES_PATH) == 2
        behind.failing.clear()
        [patch] = (backend.patch for backend in proxy.proxy.backends)
        await proxy.until(lambda: patch.source is HeadroomSource.PATCH)


async def test_a_backend_comes_back_without_its_patch() -> None:
    """It is asked again, and again when it has it."""
    async with both() as (behind, proxy, _):
        [patch] = (backend.patch for backend in proxy.proxy.backends)
        behind.capabilities = None
        behind.failing |= {HEADROOM_PATH, "/metrics"}
        await proxy.until(lambda: patch.finding.state is PatchState.STOCK)
        behind.capabilities = PATCH
        await proxy.until(lambda: patch.is_working)
        behind.failing.clear()
        await proxy.until(lambda: patch.source is HeadroomSource.PATCH)


async def test_a_session_that_is_over_is_ended() -> None:
    """Once, and only where it had been."""
    async with both() as (behind, proxy, client):
        session = await take_turn(client)
        for _ in range(2):
            await client.delete(f"/mars/v1/sessions/{session}")
        end = KvRequest(KvOp.END, session)
        await proxy.until(lambda: end in behind.hints)
        await client.delete("/mars/v1/sessions/another")
        await proxy.until(lambda: metric(proxy, "mars_hints_total", op="end", status="accepted") == 1)
    assert [hint for hint in behind.hints if hint.op is KvOp.END] == [end]


async def test_a_client_that_goes_ends_what_it_began() -> None:
    """The request at the backend, and the session that nothing came of."""
    async with both(is_streaming_for_ever=True) as (behind, proxy, client):
        async with client.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as answer:
            async for _ in answer.aiter_raw():
                break
            assert behind.open_turns == 1
        await proxy.until(lambda: not behind.open_turns)
        session = answer.headers["x-mars-session"]
        await proxy.until(lambda: any(hint.session == session for hint in behind.hints))
        await proxy.until_nothing_is_left()
    assert {hint.op for hint in behind.hints} <= {KvOp.END, KvOp.RECYCLE, KvOp.RELEASE}


async def test_a_policy_that_pins() -> None:
    """Runs live where every backend has the patch; its next turn goes before a pin that was not sent."""
    async with both(policy="continuum") as (behind, proxy, client):
        session = await take_turn(client)
        await proxy.until(lambda: bool(behind.hints))
        [pin] = behind.hints
        assert (pin.op, pin.session, pin.branch) == (KvOp.PIN, session, "")
        await proxy.until(lambda: metric(proxy, "mars_hints_total", op="pin", status="accepted") == 1)


async def test_a_policy_that_needs_more_than_there_is() -> None:
    """Is refused at the start, and the backend named."""
    async with patched_backend() as patched, patched_backend(capabilities=None) as stock:
        with pytest.raises(ExceptionGroup) as caught:
            async with running_proxy(patched.url, stock.url, policy="infercept"):
                pass
    [error] = caught.value.exceptions
    assert isinstance(error, ConfigError)
    assert f"without it: {stock.url} (stock: status 404);" in str(error)
    assert patched.url not in str(error)


async def test_batches_come_one_at_a_time() -> None:
    """What comes while one is under way goes with the next."""
    async with both() as (behind, proxy, client):
        sessions = [await take_turn(client, **{"x-mars-session": f"s{n}"}) for n in range(5)]
        [sender] = (backend.hints for backend in proxy.proxy.backends)
        await proxy.until(lambda: not sender.waiting and not behind.open_batches)
        await asyncio.sleep(0.1)  # the last of what the turns brought about
        behind.batches.clear()
        behind.batches_may_go.clear()
        await client.delete(f"/mars/v1/sessions/{sessions[0]}")
        await proxy.until(lambda: behind.open_batches == 1)
        for session in sessions[1:]:
            await client.delete(f"/mars/v1/sessions/{session}")
        await asyncio.sleep(0.1)
        behind.batches_may_go.set()
        await proxy.until(lambda: len(behind.batches) == 2)
    assert [[hint.session for hint in batch] for batch in behind.batches] == [sessions[:1], sessions[1:]]
    assert behind.most_open_batches == 1


async def test_endings_of_our_leases_are_told() -> None:
    """And nobody else's."""
    async with both() as (behind, proxy, client):
        session = await take_turn(client)
        behind.end_lease(
            LeaseEnding(1, session, Ending.RESUMED, 640, 600),
            LeaseEnding(2, "another proxy's", Ending.EXPIRED, 64),
            LeaseEnding(3, session, Ending.RECLAIMED, 32),
        )
        await proxy.until(lambda: ("/v1/mars/headroom", "after=0:3") in behind.seen)
        await proxy.until(lambda: metric(proxy, "mars_lease_endings_total") == 2)
        assert metric(proxy, "mars_lease_tokens_total", how="hit") == 600


async def test_the_key_goes_along() -> None:
    """A vLLM with --api-key protects what the patch has, too."""
    async with both(backend=Backend(api_key=Secret("k"), headroom_interval_s=0.02)) as (behind, proxy, _):
        await proxy.until(lambda: behind.asked(HEADROOM_PATH) > 0)
    assert behind.keys == {"Bearer k"}
