"""What stands around the proxy and goes wrong: a name server, and a door in front of a simulator."""

import asyncio
import contextlib
import re
import socket
import struct

LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


class Door:
    """Stands in front of a simulator and passes everything, unless it is told to answer itself."""

    def __init__(self, sim, address):
        self.sim, self.address = sim, address
        # `Retry-After` in seconds, "" for none; None passes.
        self.storm = None
        self.unhealthy = False
        self.refused = 0
        self.server = None

    async def open(self, port):
        self.server = await asyncio.start_server(self._serve, self.address, port)
        self.label = f"{self.address}:{port}"
        return self

    async def close(self):
        self.server.close()

    async def _serve(self, reader, writer):
        behind = await asyncio.open_connection(self.sim.address, self.sim.port)
        back = asyncio.create_task(self._pump(behind[0], writer))
        try:
            while True:
                message = await reader.readuntil(b"\r\n\r\n")
                if length := LENGTH.search(message):
                    message += await reader.readexactly(int(length[1]))
                if self.storm is not None and message.startswith(b"POST"):
                    self.refused += 1
                    body = b'{"error":{"message":"overloaded","type":"ServiceUnavailable","param":null,"code":503}}'
                    after = f"retry-after: {self.storm}\r\n" if self.storm else ""
                    head = f"HTTP/1.1 503 Service Unavailable\r\n{after}content-length: {len(body)}\r\n\r\n"
                    writer.write(head.encode() + body)
                elif self.unhealthy and b" /health " in message.split(b"\r\n", 1)[0]:
                    writer.write(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")
                else:
                    behind[1].write(message)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            # The test is over, or either side has closed.
            pass
        finally:
            back.cancel()
            writer.close()
            behind[1].close()

    @staticmethod
    async def _pump(reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
        writer.close()


class NameServer(asyncio.DatagramProtocol):
    """Knows the addresses of one name, by UDP on port 53, where alone resolv.conf can look for it."""

    def __init__(self, name):
        self.name, self.addresses, self.asked = name.rstrip("."), [], 0

    async def open(self, address, folder):
        loop = asyncio.get_running_loop()
        self.transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(address, 53))
        self.file = folder / "resolv.conf"
        self.file.write_text(f"nameserver {address}\noptions timeout:1 attempts:1\n")
        return self

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, client):
        self.asked += 1
        labels, at = [], 12
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].decode())
            at += 1 + data[at]
        question = data[12 : at + 5]
        (kind,) = struct.unpack("!H", data[at + 1 : at + 3])
        known = ".".join(labels).lower() == self.name
        found = self.addresses if known and kind == 1 else []
        flags = 0x8580 if known else 0x8583
        head = data[:2] + struct.pack("!HHHHH", flags, 1, len(found), 0, 0)
        records = (b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 0, 4) + socket.inet_aton(address) for address in found)
        self.transport.sendto(head + question + b"".join(records), client)
