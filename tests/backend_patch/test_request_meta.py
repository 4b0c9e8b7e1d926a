"""What a request says of its session, and that nonsense is taken for silence."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend_patch.protocol import MAX_NAME_CHARS, LeaseMode, TurnClass, XArg
from backend_patch.request_meta import RequestMeta, read_meta


@dataclass
class Sampling:
    extra_args: Any = None


@dataclass
class FakeRequest:
    sampling_params: Sampling | None = field(default_factory=Sampling)
    session_id: Any = None


def read(field_value: Any = None, /, **args: Any) -> RequestMeta:
    return read_meta(FakeRequest(Sampling(args), field_value))


def test_all_that_can_be_said() -> None:
    """Every member of the protocol."""
    meta = read(
        mars_session="s", mars_branch="b", mars_ttl_ms=1500, mars_mode="hard", mars_final=1,
        mars_class="continuation",
    )  # fmt: skip
    assert meta == RequestMeta("s", "b", 1.5, LeaseMode.HARD, True, TurnClass.CONTINUATION)
    assert meta.key == ("s", "b")


def test_silence() -> None:
    """A pooling request has no sampling parameters at all."""
    assert read() == read_meta(FakeRequest(None)) == RequestMeta()
    assert read_meta(object()).key is None  # type: ignore[arg-type]


def test_whose_word_counts() -> None:
    """Ours, vLLM's field (a header or the body), vLLM's member of the same name."""
    assert read("field", mars_session="ours", session_id="member").session == "ours"
    assert read("field", session_id="member").session == "field"
    assert read(session_id="member").session == "member"
    assert read("field", mars_session="x" * (MAX_NAME_CHARS + 1)).session == "field"


@pytest.mark.parametrize("ttl", [-1, 0, "soon", None, [1], float("inf"), float("nan"), True, 10**400, ""])
def test_no_lease_for_nonsense(ttl: object) -> None:
    """Times that are none."""
    assert read(mars_ttl_ms=ttl).ttl_s == 0.0


@given(st.dictionaries(st.sampled_from(list(XArg)), st.from_type(object) | st.text() | st.integers()))
def test_nothing_raises(args: dict[str, object]) -> None:
    """Clients may put anything there."""
    meta = read_meta(FakeRequest(Sampling(args)))
    assert meta.mode in LeaseMode
    assert meta.ttl_s >= 0
