"""Requests as bytes, answers as they are on the wire."""

import http.client
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

# Hop-by-hop (RFC 9110, 7.6.1), and the clock. Transfer-Encoding is left in: how a body is framed is to be kept too.
NOT_COMPARED = {"date", "connection", "keep-alive"}


@dataclass
class Answer:
    status: int
    reason: str
    headers: list
    body: bytes


def dial(url, timeout=60):
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=timeout)


def compose(method, target, body=b"", headers=(), version="1.1"):
    """A request's bytes. The Host header is the same whoever it is sent to."""
    head = [f"{method} {target} HTTP/{version}", "Host: vllm.test"]
    head += [f"{k}: {v}" for k, v in headers]
    if body or method == "POST":
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body


def receive(connection, method):
    """Reads one answer; raises IncompleteRead where it is cut short."""
    answer = http.client.HTTPResponse(connection, method=method)
    answer.begin()
    headers = sorted((k.lower(), v) for k, v in answer.getheaders() if k.lower() not in NOT_COMPARED)
    body = answer.read()
    return Answer(answer.status, answer.reason, headers, body)


def exchange(url, request, method="POST"):
    with dial(url) as connection:
        connection.sendall(request)
        return receive(connection, method)


class Stream:
    """A streamed request whose frames are read one at a time, so that it can be left at any point."""

    def __init__(self, url, request, timeout=60):
        self.socket = dial(url, timeout)
        self.socket.sendall(request)
        self.answer = None

    def head(self):
        self.answer = http.client.HTTPResponse(self.socket, method="POST")
        self.answer.begin()
        return self.answer.status

    def frame(self):
        """The next event's bytes, without the blank line that ends it."""
        lines = []
        while True:
            line = self.answer.readline()
            if line in (b"\n", b"\r\n"):
                return b"".join(lines)
            assert line, f"the stream ended within {lines!r}"
            lines.append(line)

    def close(self):
        if self.answer is not None:
            self.answer.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
