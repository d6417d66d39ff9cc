"""A server on loopback that gives files as the public ones do, and breaks off when it is told to."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Served:
    """What the server has and what it was asked.

    Attributes
    ----------
    url
        Of the server.
    content
        By path and query.
    breaks
        How often each path breaks off halfway through what is left of it.
    answers
        Status codes that a path answers before it gives its content.
    ranges
        Whether it knows ranges.
    asked
        Path and first byte of every request.
    """

    url: str = ""
    content: dict[str, bytes] = field(default_factory=dict)
    breaks: dict[str, int] = field(default_factory=dict)
    answers: dict[str, list[int]] = field(default_factory=dict)
    ranges: bool = True
    asked: list[tuple[str, int]] = field(default_factory=list)

    def add_record(self, record: int, files: Mapping[str, bytes]) -> None:
        """Serve files as Zenodo does, with sizes, checksums and links to its own address."""
        entries: list[dict[str, Any]] = []
        for name, content in files.items():
            path = f"/api/records/{record}/files/{name}/content"
            self.content[path] = content
            checksum = f"md5:{hashlib.md5(content).hexdigest()}"
            links = {"self": f"https://zenodo.org{path}"}
            entries.append({"key": name, "size": len(content), "checksum": checksum, "links": links})
        self.content[f"/api/records/{record}"] = json.dumps({"id": record, "files": entries}).encode()

    def path_of(self, record: int, name: str) -> str:
        """Where a file of a record is."""
        return f"/api/records/{record}/files/{name}/content"


@contextmanager
def serving() -> Iterator[Served]:
    """Serve on a free port of loopback."""
    served = Served()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            stated = self.headers.get("Range", "")
            start = int(stated.removeprefix("bytes=").rstrip("-")) if stated else 0
            served.asked.append((self.path, start))
            content = served.content.get(self.path)
            waiting = served.answers.get(self.path, [])
            status = waiting.pop(0) if waiting else 200 if content is not None else 404
            if status != 200 or content is None:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if start and served.ranges and start >= len(content):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = start if served.ranges else 0
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            end = len(content)
            if served.breaks.get(self.path, 0):
                served.breaks[self.path] -= 1
                end = start + (end - start) // 2
                self.close_connection = True
            self.wfile.write(content[start:end])

        def do_HEAD(self) -> None:
            content = served.content.get(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()


def packed(files: Mapping[str, bytes]) -> bytes:
    """A ZIP file of these files."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, value in files.items():
            archive.writestr(name, value)
    return content.getvalue()
