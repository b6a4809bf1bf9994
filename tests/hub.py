"""A hub of models on the loopback, as far as an upload needs one."""

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

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", files
    finally:
        server.shutdown()
