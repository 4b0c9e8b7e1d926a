"""A name server for one test: answers over UDP what it is told to, in real messages."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

NAME = "vllm.test."


@dataclass
class NameServer(asyncio.DatagramProtocol):
    """``records`` are those of a name and type, e.g. ``{("vllm.test.", "A"): ["10.0.0.1"]}``."""

    records: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    ttl_s: int = 1
    fails: bool = False
    questions: int = 0
    address: str = ""
    _transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        host, port = transport.get_extra_info("sockname")[:2]
        self.address = f"{host}:{port}"

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.questions += 1
        asked = dns.message.from_wire(data)
        answer = dns.message.make_response(asked)
        [question] = asked.question
        kind = dns.rdatatype.to_text(question.rdtype)
        found = self.records.get((question.name.to_text(), kind))
        is_known = any(name == question.name.to_text() for name, _ in self.records)
        if self.fails:
            answer.set_rcode(dns.rcode.SERVFAIL)
        elif not is_known:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif found:
            answer.answer.append(dns.rrset.from_text(question.name, self.ttl_s, "IN", kind, *found))
        answer.flags |= dns.flags.RA
        self._transport.sendto(answer.to_wire(), addr)


@asynccontextmanager
async def name_server(**records: Any) -> AsyncIterator[NameServer]:
    server = NameServer(**records)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: server, local_addr=("127.0.0.1", 0))
    try:
        yield server
    finally:
        transport.close()
