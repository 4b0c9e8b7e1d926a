from gateway.idempotency import IdempotencyTable

KEY = ("tenant", "key")


def test_a_claim_is_found_until_it_expires() -> None:
    table = IdempotencyTable(max_keys=10, ttl_s=60)
    assert table.find(KEY, now=0) is None
    assert table.try_claim(KEY, b"body", "ex-1", now=0)
    claim = table.find(KEY, now=59)
    assert claim is not None
    assert (claim.exec_id, claim.body_digest) == ("ex-1", b"body")
    assert table.find(("other", "key"), now=59) is None
    assert table.find(KEY, now=60) is None
    assert len(table) == 0


def test_full_table_takes_no_more_and_forgets_nothing() -> None:
    table = IdempotencyTable(max_keys=1, ttl_s=60)
    assert table.try_claim(KEY, b"", "ex-1", now=0)
    assert not table.try_claim(("tenant", "2"), b"", "ex-2", now=1)
    assert table.find(KEY, now=1) is not None
    assert table.try_claim(("tenant", "2"), b"", "ex-2", now=60)


def test_released_key_may_be_claimed_again() -> None:
    table = IdempotencyTable(max_keys=1, ttl_s=60)
    table.try_claim(KEY, b"", "ex-1", now=0)
    table.release(KEY)
    assert table.try_claim(KEY, b"", "ex-2", now=1)
