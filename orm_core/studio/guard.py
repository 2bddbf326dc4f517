"""Who may talk to the studio: this machine's own browser, on pages of the studio itself.

A page on the internet can make a browser send requests to localhost, and a name can be made to
lead there (DNS rebinding). So the Host header must be one that we serve; a request that changes
something must come from our own page (Origin, Sec-Fetch-Site) and carry a token that only our
pages hold; other sites may lead here by a link, and do nothing else. No CORS header is sent, and
the pages may load nothing from elsewhere (OWASP "Cross-Site Request Forgery Prevention", W3C
"Fetch Metadata" and "Content Security Policy").
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
import threading
from typing import Final

from flask import Flask, Response, abort, redirect, request
from werkzeug.wrappers import Response as AnyResponse

#: bytes that a request may carry
MAX_BODY: Final = 1 << 20
#: characters of an address's query
MAX_QUERY: Final = 8_192
COOKIE: Final = "orm_core_studio_pass"
_SAFE: Final = ("GET", "HEAD")
_EMBEDDED: Final = ("iframe", "frame", "embed", "object")

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # not "no-referrer", with which browsers send "Origin: null" with our own forms
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def is_loopback(host: str) -> bool:
    """Whether a host to listen on can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """Lets requests through that our own pages make, and refuses all others.

    ``host`` and ``port`` are where the studio listens. On another host than this machine's own,
    a request needs the cookie that the one-time link of ``link()`` gives.
    """

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        #: held by our forms, unknown to other sites
        self.form_token: str = secrets.token_urlsafe(32)
        self._lock = threading.Lock()
        self._pass = None if is_loopback(host) else secrets.token_urlsafe(32)
        self._invitation = None if is_loopback(host) else secrets.token_urlsafe(32)

    def install(self, app: Flask) -> None:
        """Check each request of the app, and mark each answer."""
        app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
        app.config["MAX_FORM_MEMORY_SIZE"] = MAX_BODY
        app.before_request(self.check)
        app.after_request(self.mark)

    def link(self) -> str:
        """The address to open; on a network it lets one browser in, once."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        address = f"http://{host}:{self.port}/"
        return address if self._invitation is None else f"{address}?_token={self._invitation}"

    # -- requests ---------------------------------------------------------------------------

    def check(self) -> AnyResponse | None:
        """Refuse what does not come from our own pages, with 401, 403, 411, 413 or 414."""
        if not self._is_ours(request.headers.get("Host", "")):
            abort(403, "The studio does not answer to this host name.")
        if len(request.query_string) > MAX_QUERY:
            abort(414)
        if request.method not in _SAFE and request.content_length is None:
            abort(411)  # a body of unknown length is not read
        self._check_origin()
        return self._admit()

    def _is_ours(self, host: str) -> bool:
        name, port = _split(host)
        if port != self.port:
            return False
        if is_loopback(self.host):
            return name in ("localhost", "127.0.0.1", "::1", self.host)
        if name in (self.host, "localhost", "127.0.0.1"):
            return True
        # Listening everywhere. A rebound name is a name, so an address is none.
        return _is_any(self.host) and (_is_address(name) or name == socket.gethostname().lower())

    def _check_origin(self) -> None:
        site = request.headers.get("Sec-Fetch-Site")
        if request.method in _SAFE:
            leads_here = request.headers.get("Sec-Fetch-Mode") == "navigate"
            embedded = request.headers.get("Sec-Fetch-Dest") in _EMBEDDED
            if embedded or (site in ("cross-site", "same-site") and not leads_here):
                abort(403, "Another site asked for this page.")
            return
        origin = request.headers.get("Origin")
        if origin is not None and origin != f"http://{request.headers.get('Host', '')}":
            abort(403, "Another site sent this form.")
        if site not in (None, "same-origin") or (site is None and origin is None):
            abort(403, "Another site sent this form.")
        token = request.form.get("_csrf", "")
        if not hmac.compare_digest(token.encode(), self.form_token.encode()):
            abort(403, "This form is of an earlier run of the studio: load its page again.")

    def _admit(self) -> AnyResponse | None:
        if self._pass is None:
            return None
        given = request.args.get("_token", "")
        if given and request.method == "GET":
            with self._lock:
                expected, valid = self._invitation or "", False
                if expected and hmac.compare_digest(given.encode(), expected.encode()):
                    self._invitation, valid = None, True
            if valid:
                answer = redirect("/", 303)
                answer.set_cookie(COOKIE, self._pass, httponly=True, samesite="Lax")
                return answer
        cookie = request.cookies.get(COOKIE, "")
        if not hmac.compare_digest(cookie.encode(), self._pass.encode()):
            abort(401, "Open the link that orm-core studio printed; it works once.")
        return None

    # -- answers ----------------------------------------------------------------------------

    def mark(self, answer: Response) -> Response:
        """Add the headers that keep a page to itself."""
        for name, text in HEADERS.items():
            answer.headers[name] = text
        if not request.path.startswith("/-/static/"):
            answer.headers["Cache-Control"] = "no-store"
        return answer


def _split(host: str) -> tuple[str, int | None]:
    """``[::1]:4983`` -> ``("::1", 4983)``"""
    name, colon, port = host.lower().rpartition(":")
    if not colon or host.endswith("]"):
        name, port = host.lower(), "80"
    if name.startswith("[") and name.endswith("]"):
        name = name[1:-1]
    return name, int(port) if port.isascii() and port.isdigit() and len(port) < 6 else None


def _is_any(host: str) -> bool:
    return host in ("0.0.0.0", "::")  # noqa: S104 - compared, not listened on


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
