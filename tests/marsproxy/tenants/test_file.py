"""The tenants file: what it may say, and what is said of one that is wrong."""

from pathlib import Path

import pytest

from marsproxy.core.events import TenantLimits
from marsproxy.core.settings import ConfigError
from marsproxy.tenants.file import MAX_FILE_BYTES, MAX_TENANTS, read_tenants, tenant_id
from marsproxy.tenants.keys import new_key


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "tenants.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_everything_that_can_be_said(tmp_path: Path) -> None:
    _, record = new_key()
    _, next_record = new_key()
    path = written(
        tmp_path,
        f"""
        [tenants.research]
        keys = ["{record}", "{next_record}"]
        weight = 2
        max_open_turns = 64
        max_sessions = 20
        tokens_per_s = 2000
        burst_tokens = 100_000.0
        models = ["qwen3-coder"]
        expires = 2030-01-01T00:00:00Z

        [tenants.guests]
        keys = []
        expires = 2030-01-01
        """,
    )
    research, guests = read_tenants(path)
    assert research.limits == TenantLimits(tenant_id("research"), 2.0, 64, 20, 2000.0, 100_000.0)
    assert research.keys == (record, next_record)
    assert research.models == {"qwen3-coder"}
    assert research.expires_s == 1893456000
    assert guests.limits == TenantLimits(tenant_id("guests"))
    assert guests.expires_s == pytest.approx(1893456000 + 86_400, abs=1)
    assert guests.models is None


def test_a_tenant_keeps_its_id_whatever_its_keys_are() -> None:
    assert tenant_id("research") == tenant_id("research") != tenant_id("guests")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[tenants.a", "end of document"),
        ("[tenants.a]\nkeys = [\n\n}", "line 4"),
        ("", "tenants: nobody is named"),
        ("tenants = 3", "tenants: nobody is named"),
        ("[tenant.a]", "tenant: no such table; allowed: [tenants.NAME]"),
        ("tenants.a = 3", "tenants.a: not a table"),
        ("[tenants.a]", "tenants.a: Object missing required field `keys`"),
        ("[tenants.a]\nkeys = []\nwieght = 2", "tenants.a.wieght: no such field; did you mean weight?"),
        ("[tenants.a]\nkeys = []\nweight = 0", "tenants.a.weight: Expected `float` >= 0.001"),
        ("[tenants.a]\nkeys = []\nmax_sessions = 1.5", "tenants.a.max_sessions: Expected `int | null`"),
        ("[tenants.a]\nkeys = []\nmax_open_turns = 0", "tenants.a.max_open_turns: Expected `int` >= 1"),
        ("[tenants.a]\nkeys = []\ntokens_per_s = -1", "tenants.a.tokens_per_s: Expected `float` > 0"),
        ("[tenants.a]\nkeys = []\nburst_tokens = 5", "tenants.a.burst_tokens: is of no meaning"),
        ("[tenants.a]\nkeys = []\nmodels = []", "tenants.a.models: Expected `array` of length >= 1"),
        ("[tenants.a]\nkeys = []\nexpires = 'soon'", "tenants.a.expires: not a date"),
        ("[tenants.a]\nkeys = [1]", "tenants.a.keys[0]: Expected `str`"),
        ("[tenants.a]\nkeys = ['mars-secret']", "tenants.a.keys[0]: not the record of a key"),
        ("[tenants.'a b']\nkeys = []", "tenants: a name that is not allowed"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, text: str, complaint: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_tenants(path)
    assert str(caught.value).startswith(str(path))
    assert complaint in str(caught.value)


def test_a_key_in_the_wrong_place_is_not_repeated(tmp_path: Path) -> None:
    """The complaint goes into a log."""
    key, _ = new_key()
    for line in (f'keys = ["{key}"]', f'keys = []\nweight = "{key}"', f'keys = []\nexpires = "{key}"'):
        with pytest.raises(ConfigError) as caught:
            read_tenants(written(tmp_path, f"[tenants.a]\n{line}"))
        assert key not in str(caught.value)


def test_a_key_belongs_to_one(tmp_path: Path) -> None:
    _, record = new_key()
    text = "\n".join(f'[tenants.{name}]\nkeys = ["{record}"]' for name in "ab")
    with pytest.raises(ConfigError, match=r"tenants\.b\.keys\[0\]: a has a key with this id"):
        read_tenants(written(tmp_path, text))


def test_a_file_has_bounds(tmp_path: Path) -> None:
    text = "\n".join(f"[tenants.t{number}]\nkeys = []" for number in range(MAX_TENANTS + 1))
    with pytest.raises(ConfigError, match=r"tenants: 10001 of them; allowed: at most 10000"):
        read_tenants(written(tmp_path, text))
    with pytest.raises(ConfigError, match="too large; allowed: at most 16777216 bytes"):
        read_tenants(written(tmp_path, "#" * (MAX_FILE_BYTES + 1)))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_tenants(tmp_path / "none.toml")
