"""Output is kept whole by the host and read at the reader's pace, which is nobody else's."""

import hashlib
import itertools
import socket
from urllib.parse import urlsplit

from tests.gateway_live.processes import resident_mb
from tests.gateway_live.world import World

MANY_BYTES = 50_000_000
WRITE_MANY = "python3 -c 'import sys; [sys.stdout.buffer.write(bytes([n % 251]) * 10**6) for n in range(50)]'"


def many_digest() -> str:
    digest = hashlib.sha256()
    for number in range(50):
        digest.update(bytes([number % 251]) * 10**6)
    return digest.hexdigest()


def stalled_reader(url: str, path: str) -> socket.socket:
    """Asks and then reads nothing, with a window as small as it gets."""
    address = urlsplit(url)
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.connect((address.hostname, address.port))
    reader.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    return reader


def test_50_mb_to_stalled_readers(shared: World) -> None:
    """The command does not wait for them, no other reader does, and nothing is lost."""
    session = shared.session()
    exec_id = session.start(WRITE_MANY, output={"max_bytes": MANY_BYTES})
    path = f"/v1/execs/{exec_id}"
    output = f"{path}/output?wait=20&limit=1048576&offset="
    stalled = [stalled_reader(shared.gateway.url, f"{output}{n << 20}") for n in range(8)]
    stalled.append(stalled_reader(shared.gateway.url, f"{path}/events"))
    try:
        answer = shared.caller.ended(exec_id)
        assert (answer["state"], answer["exit_code"]) == ("exited", 0)
        assert (answer["stdout"]["total_bytes"], answer["stdout"]["truncated"]) == (MANY_BYTES, False)
        assert session.stdout("echo others go on") == "others go on\n"
        assert hashlib.sha256(shared.caller.output(exec_id)).hexdigest() == many_digest()
    finally:
        for reader in stalled:
            reader.close()


def test_reader_that_comes_late_gets_everything(shared: World) -> None:
    exec_id = shared.session().start("for n in 1 2 3; do echo $n; sleep 0.1; done")
    shared.caller.ended(exec_id)
    assert shared.caller.output(exec_id) == b"1\n2\n3\n"


def test_output_comes_while_the_command_runs(shared: World) -> None:
    session = shared.session()
    goon = shared.trace()
    exec_id = session.start(f"echo first; until [ -e {goon} ]; do sleep 0.02; done; echo second")
    pieces = shared.caller.pieces(exec_id)
    assert next(each for each in pieces if each) == b"first\n"
    assert shared.caller.look(exec_id)["state"] == "running"
    goon.touch()
    assert b"".join(pieces) == b"second\n"


def test_more_than_is_kept_is_counted_and_the_command_goes_on(shared: World) -> None:
    answer = shared.session().run(f"{WRITE_MANY}; echo survived >&2", output={"max_bytes": 1000})
    assert answer["exit_code"] == 0
    assert answer["stdout"]["truncated"]
    assert (answer["stdout"]["kept_bytes"], answer["stdout"]["total_bytes"]) == (1000, MANY_BYTES)
    assert answer["stderr"]["text"] == "survived\n"


def test_output_does_not_fill_the_gateway(shared: World) -> None:
    """It is on the disk of the host; readers take it in pieces."""
    exec_id = shared.session().start(f"{WRITE_MANY}; {WRITE_MANY}", output={"max_bytes": 2 * MANY_BYTES})
    peak_mb, received = 0.0, 0
    for piece in shared.caller.pieces(exec_id):
        received += len(piece)
        peak_mb = max(peak_mb, resident_mb(shared.gateway.pid))
    assert received == 2 * MANY_BYTES
    assert peak_mb < 150


def test_parts_of_characters_and_bytes_that_are_no_text_arrive_as_they_are(shared: World) -> None:
    answer = shared.session().run(r"printf 'a\xff\x00b'; printf '\xc3\xa9\r\n' >&2")
    assert (answer["stdout"]["text"], answer["stdout"]["b64"]) == (None, "Yf8AYg==")
    assert answer["stderr"]["text"] == "é\r\n"


def test_merged_streams_keep_their_order(shared: World) -> None:
    lines = "for n in $(seq 50); do echo out $n; echo err $n >&2; done"
    answer = shared.session().run(lines, output={"merge": True})
    expected = itertools.chain.from_iterable((f"out {n}", f"err {n}") for n in range(1, 51))
    assert answer["stdout"]["text"].splitlines() == list(expected)
    assert answer["stderr"]["total_bytes"] == 0
