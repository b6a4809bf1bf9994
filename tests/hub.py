"""A hub on the loopback, as far as an upload of a model and a stream of rows need one."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@contextmanager
def hub() -> Iterator[tuple[str, dict[str, bytes]]]:
    """Its address, and the files that were put into `somebody/something`, as they come."""
    files: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._answer(*self._answered(self.path.partition("?")[0], body))

        def _answered(self, path: str, body: bytes) -> tuple[int, Any]:
            if self.headers.get("Authorization") != "Bearer hf_secret":
                return 401, {"error": "Invalid username or password."}
            here = f"http://{self.headers['Host']}/somebody/something"
            if path == "/api/repos/create":
                return 200, {"url": here, "id": "somebody/something"}
            if path == "/api/validate-yaml":
                return 200, {"errors": [], "warnings": []}
            if path == "/api/models/somebody/something/preupload/main":
                wanted = [one["path"] for one in json.loads(body)["files"]]
                return 200, {"files": [{"path": one, "uploadMode": "regular", "shouldIgnore": False} for one in wanted]}
            assert path == "/api/models/somebody/something/commit/main"
            for line in body.decode().splitlines():
                said = json.loads(line)
                if said["key"] == "file":
                    files[said["value"]["path"]] = base64.b64decode(said["value"]["content"])
            return 200, {"commitUrl": f"{here}/commit/{'1' * 40}", "commitOid": "1" * 40}

        def _answer(self, code: int, answer: Any) -> None:
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Nobody reads it."""

    with _serving(Handler) as address:
        yield address, files


@contextmanager
def hub_of_rows(data: bytes) -> Iterator[tuple[str, list[int]]]:
    """The address of one that holds `data` as `somebody/rows`, and how many bytes of it were asked for each time."""
    asked_for: list[int] = []
    commit, api = "1" * 40, "/api/datasets/somebody/rows"
    about = {"id": "somebody/rows", "sha": commit, "private": False, "tags": [], "siblings": [], "downloads": 0}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(*self._found(self.path.partition("?")[0]))

        def do_HEAD(self) -> None:
            self._answer(404, b"")

        def _found(self, path: str) -> tuple[int, bytes]:
            if path.startswith(f"{api}/tree/"):
                file = {"type": "file", "path": "rows.jsonl", "size": len(data), "oid": commit}
                return 200, json.dumps([file]).encode()
            if path.startswith(api):
                return 200, json.dumps(about).encode()
            if not path.endswith(f"{commit}/rows.jsonl"):
                return 404, b"{}"
            begin, end = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
            asked_for.append(min(end + 1, len(data)) - begin)
            return 206, data[begin : end + 1]

        def _answer(self, code: int, body: bytes) -> None:
            self.send_response(code)
            if code == 404:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nobody reads it."""

    with _serving(Handler) as address:
        yield address, asked_for


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
