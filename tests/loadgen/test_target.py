"""What is asked of a target before the first turn, and how much of a first prompt is not ours."""

import httpx
import pytest

from loadgen.arrivals import Arrivals, ClosedLoop, OpenLoop
from loadgen.client import open_http_client
from loadgen.errors import LoadgenError
from loadgen.limits import SPARE_FILES, check_open_files
from loadgen.target import Target, base_url, probe
from tests.loadgen.upstream import FakeGateway, FakeModel


async def probed(url: str, model: str | None = None) -> Target:
    async with open_http_client() as http:
        return await probe(http, url, model, "word " * 200)


async def test_a_target_names_its_model_and_measures_its_tokens(model: FakeModel) -> None:
    target = await probed(model.url)
    assert (target.model, target.max_model_len) == ("fake-model", 8192)
    assert (target.chars_per_token, target.is_calibrated) == (model.chars_per_token, True)
    assert target.overhead_tokens == model.template_tokens
    assert target.turn_overhead_tokens == model.turn_template_tokens
    assert target.tool_overhead_tokens == model.tool_template_tokens


async def test_a_target_without_a_tokenizer_is_taken_for_the_usual_one(model: FakeModel) -> None:
    model.has_tokenize = False
    target = await probed(model.url, "other")
    assert (target.model, target.max_model_len) == ("other", None)
    assert (target.chars_per_token, target.is_calibrated, target.overhead_tokens) == (4.0, False, 0)


async def test_a_server_that_is_no_model_server_says_so(gateway: FakeGateway) -> None:
    with pytest.raises(LoadgenError, match="no OpenAI model list"):
        await probed(gateway.url)
    with pytest.raises(LoadgenError, match="does not answer"):
        await probed("http://127.0.0.1:1")


@pytest.mark.parametrize("url", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"])
def test_urls_with_and_without_the_version_are_the_same(url: str) -> None:
    assert base_url(url) == "http://h:1"


async def test_the_key_is_sent_and_stays_out_of_sight() -> None:
    async with open_http_client("secret") as http:
        assert http.headers["authorization"] == "Bearer secret"
        assert "secret" not in repr(httpx.Request("GET", "http://h", headers=http.headers))


def test_a_closed_loop_that_needs_more_files_than_allowed_is_refused() -> None:
    check_open_files(ClosedLoop(100), 1000, 200 + SPARE_FILES, connections_per_session=2)
    check_open_files(ClosedLoop(1000), 10, 20 + SPARE_FILES, connections_per_session=2)
    check_open_files(OpenLoop(10.0, Arrivals.FIXED), 1000, 100, connections_per_session=1)
    with pytest.raises(LoadgenError, match="ulimit -n"):
        check_open_files(ClosedLoop(101), 1000, 200 + SPARE_FILES, connections_per_session=2)
