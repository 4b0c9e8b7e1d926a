"""Keys: random, recognised by a hash, shown nowhere."""

import pytest

from marsproxy.tenants.keys import key_id_of, new_key, read_record


def test_a_key_fits_its_record_and_no_other() -> None:
    key, record = new_key()
    other, other_record = new_key()
    assert record.fits(key)
    assert not record.fits(other)
    assert not other_record.fits(key)
    assert not record.fits(key[:-1] + ("A" if key[-1] != "A" else "B"))
    assert key_id_of(key) == record.id


def test_what_is_kept_reads_back_and_does_not_have_the_key_in_it() -> None:
    key, record = new_key()
    assert read_record(str(record)) == record
    secret = key.rsplit("-", 1)[-1]
    assert secret not in str(record) + repr(record)
    assert record.digest.hex() not in repr(record)


def test_two_records_of_one_key_would_differ() -> None:
    """The salt is new each time, and so is the key."""
    made = [new_key() for _ in range(100)]
    assert len({key for key, _ in made}) == len({record.salt for _, record in made}) == 100


@pytest.mark.parametrize(
    "text",
    ["", "mars-", "sk-proj-abc", "mars-0123abcd-short", "mars-0123abcd-" + "ü" * 43, "m" * 1000],
)
def test_what_is_no_key_has_no_id(text: str) -> None:
    assert key_id_of(text) is None


@pytest.mark.parametrize("text", ["", "sha256:", "md5:0123abcd:00:00", "mars-0123abcd-" + "A" * 43])
def test_what_is_no_record_is_not_read(text: str) -> None:
    assert read_record(text) is None
