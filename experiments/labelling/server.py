"""The page over HTTP, for one person on this machine or for whoever holds a token.

Another site that the person visits must neither read nor answer: a request has to name this server as its host (so that
no foreign name can be bound to this address), and what changes anything has to come from this page. The page itself
holds no data; it asks for them and shows them as text.
"""

from __future__ import annotations

import errno
import hmac
import ipaddress
import json
import re
import secrets
import socket
import sys
from collections.abc import Callable
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from experiments.labelling.desk import Desk, Stale
from unified_irl.errors import UserError

PAGE = Path(__file__).parent / "page"
STATIC = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; media-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
MOST_BYTES = 2**18
SECONDS_OF_SILENCE = 30


class Refused(Exception):
    """A request that is not answered, with the status that says why."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class LabelServer(ThreadingHTTPServer):
    """One desk. When its last query is answered, the files are written before the page says so."""

    daemon_threads = True

    def __init__(self, desk: Desk, host: str, port: int) -> None:
        self.desk, self.host = desk, host
        self.token = "" if is_loopback(host) else secrets.token_urlsafe(24)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), Handler)
        except OSError as error:
            raise UserError(_why_not(error, host, port)) from error
        except OverflowError as error:
            raise UserError(f"port is {port}; expected 0 to 65535.") from error

    def server_bind(self) -> None:
        """Without the look-up of the host's name that HTTPServer makes, which may take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.host, int(self.server_address[1])

    @property
    def address(self) -> str:
        """What to open in a browser."""
        host = socket.gethostname() if self.host in ("", "0.0.0.0", "::") else self.host
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{self.server_port}/" + (f"?token={self.token}" if self.token else "")

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Browsers hang up in the middle of films; that is nobody's mistake."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    def knows(self, host: str) -> bool:
        """Whether a request's Host names this server. Addresses in digits do, where it can be reached from elsewhere:
        only a name can be bound to another machine's address."""
        name, port = _host_and_port(host)
        if port != self.server_port:
            return False
        if is_loopback(self.host):
            return is_loopback(name)
        return _is_address(name) or name.lower() in {
            one.lower() for one in (self.host, "localhost", socket.gethostname(), socket.getfqdn())
        }


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "unified-irl", ""
    timeout = SECONDS_OF_SILENCE
    server: LabelServer

    def do_GET(self) -> None:
        self._dealt_with(self._get)

    def do_POST(self) -> None:
        self._dealt_with(self._post)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nobody wants to read of every request."""

    def _dealt_with(self, deal: Callable[[str], None]) -> None:
        try:
            self._check()
            deal(urlsplit(self.path).path)
        except Refused as refusal:
            self._say(refusal.status, str(refusal))
        except Stale as error:
            self._say(HTTPStatus.CONFLICT, str(error))
        except UserError as error:
            self._say(HTTPStatus.BAD_REQUEST, str(error))

    def _check(self) -> None:
        if len(hosts := self.headers.get_all("Host", [])) != 1 or not self.server.knows(hosts[0]):
            raise Refused(HTTPStatus.FORBIDDEN, "This server is not called that; use the address that `label` printed.")
        if self.command == "POST":
            origin, site = self.headers.get("Origin"), self.headers.get("Sec-Fetch-Site", "same-origin")
            if origin not in (None, f"http://{hosts[0]}") or site not in ("same-origin", "none"):
                raise Refused(HTTPStatus.FORBIDDEN, "Answers are taken from this server's own page only.")
        if self.server.token and not any(map(self._is_token, self._tokens())):
            raise Refused(
                HTTPStatus.FORBIDDEN, "The token is missing or wrong; open the whole address that `label` printed."
            )

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(errors="replace"), self.server.token.encode())

    def _tokens(self) -> list[str]:
        """Those in the address, and the one that the page got as a cookie."""
        try:
            cookie = SimpleCookie(self.headers.get("Cookie", "")).get(self._cookie)
        except CookieError:
            cookie = None
        return [*parse_qs(urlsplit(self.path).query).get("token", []), *([cookie.value] if cookie else [])]

    @property
    def _cookie(self) -> str:
        """Cookies do not tell ports apart; their names have to."""
        return f"label_{self.server.server_port}"

    def _get(self, path: str) -> None:
        if path in STATIC:
            name, kind = STATIC[path]
            self._send(HTTPStatus.OK, (PAGE / name).read_bytes(), kind)
        elif path == "/state":
            self._send_json(self.server.desk.state())
        elif found := re.fullmatch(r"/film/(\d{1,9}\.\d{1,9})/(left|right)\.mp4", path):
            self._send_film(self.server.desk.film(*found.groups()))
        else:
            raise Refused(HTTPStatus.NOT_FOUND, "There is nothing here.")

    def _post(self, path: str) -> None:
        given, desk = self._body(), self.server.desk
        showing = _field(given, "showing", str)
        if path == "/answer":
            seconds, said = _field(given, "seconds", float), _field(given, "said", str)
            state = desk.answer(showing, said, seconds, _field({"text": "", **given}, "text", str))
        elif path == "/undo":
            state = desk.undo(showing)
        else:
            raise Refused(HTTPStatus.NOT_FOUND, "There is nothing here.")
        if desk.is_done:
            desk.export()
        self._send_json(state)

    def _body(self) -> dict[str, Any]:
        """JSON only, which other sites cannot send without asking."""
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > MOST_BYTES:
            self.close_connection = True
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"Expected a body of at most {MOST_BYTES} bytes.")
        body = self.rfile.read(int(length))
        if self.headers.get_content_type() != "application/json":
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Expected JSON.")
        try:
            given = json.loads(body)
        except (ValueError, RecursionError):
            given = None
        if not isinstance(given, dict):
            raise UserError("Expected a table of an answer's fields.")
        return given

    def _send_film(self, path: Path) -> None:
        """Whole, or the part that is asked for: some browsers play nothing that they cannot have in parts."""
        film = path.read_bytes()
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not wanted or wanted.groups() == ("", ""):
            self._send(HTTPStatus.OK, film, "video/mp4", {"Accept-Ranges": "bytes"})
            return
        begin, end = wanted.groups()
        first = int(begin) if begin else max(0, len(film) - int(end))
        last = min(int(end), len(film) - 1) if begin and end else len(film) - 1
        if first > last:
            raise Refused(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "The film ends before that.")
        said = {"Accept-Ranges": "bytes", "Content-Range": f"bytes {first}-{last}/{len(film)}"}
        self._send(HTTPStatus.PARTIAL_CONTENT, film[first : last + 1], "video/mp4", said)

    def _send_json(self, data: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(status, json.dumps(data).encode(), "application/json")

    def _say(self, status: HTTPStatus, sentence: str) -> None:
        if self.command == "POST" or status == HTTPStatus.FORBIDDEN:
            self.close_connection = True  # there may be a body that nobody has read
        self._send_json({"error": sentence}, status)

    def _send(self, status: HTTPStatus, body: bytes, kind: str, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), **HEADERS, **(more or {})}
        if self.server.token and status == HTTPStatus.OK and urlsplit(self.path).path == "/":
            headers["Set-Cookie"] = f"{self._cookie}={self.server.token}; HttpOnly; SameSite=Lax; Path=/"
        if self.close_connection:
            headers["Connection"] = "close"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def is_loopback(host: str) -> bool:
    """Whether the host is this machine, as seen from itself alone."""
    return host.lower() == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _host_and_port(host: str) -> tuple[str, int]:
    """('::1', 80) of '[::1]:80'; the port of HTTP where none is named."""
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]@/\s]+))(?::(\d{1,5}))?", host)
    return (found[1] or found[2], int(found[3] or 80)) if found else ("", -1)


def _field(given: dict[str, Any], name: str, type_: type[Any]) -> Any:
    value = given.get(name)
    if type_ is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 2**53 else None
    if not isinstance(value, type_):
        raise UserError(f"'{name}' is missing or of another kind.")
    return value


def _why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} of {host} is in use by another program; choose another (--port 0 takes any that is free)."
    if error.errno == errno.EACCES:
        return f"Port {port} of {host} may not be used by everybody; choose one above 1023."
    return f"Nothing can be served at {host}, port {port}: {error.strerror or error}. Choose another --host or --port."
