"""Who may read: the token, and what keeps other web sites from reading through a visitor's browser.

Without a token only loopback is served, and the danger is a web site whose name is made to point at 127.0.0.1 (DNS
rebinding): its requests carry its own name in `Host`, and are refused. With a token any name is served, since such a
site knows neither the token nor the cookie, which browsers keep by name. Requests that a page of another origin makes
are refused by what browsers say about them (`Origin`, `Sec-Fetch-Site`), and no answer allows cross-origin reads.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::(\d{1,5}))?")

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "edgeseg",
}
"""Sent with every answer."""


@dataclass(frozen=True)
class Refusal:
    """An HTTP status and what to tell the viewer."""

    status: int
    text: str


class Access:
    """Decides about requests by their headers.

    Args:
        token: None: everybody who reaches the port may read.
        port: names the cookie, which browsers do not keep by port.
    """

    def __init__(self, token: str | None, port: int) -> None:
        self._token = token
        self.cookie_name = f"edgeseg-{port}"
        self.cookie = "" if token is None else hmac.new(token.encode(), b"edgeseg live view", "sha256").hexdigest()
        """What the browser keeps instead of the token itself."""

    def refusal(
        self,
        *,
        path: str,
        hosts: Sequence[str],
        headers: Mapping[str, str],
        cookies: Mapping[str, str],
        query: Mapping[str, str],
    ) -> Refusal | None:
        """Why the request is refused; None when it is not.

        Args:
            hosts: all `Host` headers.
            headers: names as HTTP has them, in any case (aiohttp's mapping).
        """
        match = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if match is None:
            return Refusal(400, "a request has one Host header")
        if self._token is None and match[1].lower() not in LOOPBACK_NAMES:
            return Refusal(421, "this live view is served on this machine alone, as localhost")
        origin = headers.get("Origin")
        if origin is not None and origin.lower() not in (f"http://{hosts[0]}".lower(), f"https://{hosts[0]}".lower()):
            return Refusal(403, "other web sites may not read this")
        # A link on another site may open the page; nothing else may be asked for from there.
        opens_page = path == "/" and headers.get("Sec-Fetch-Mode") == "navigate"
        if headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin") and not opens_page:
            return Refusal(403, "other web sites may not read this")
        if self._token is not None and not self._is_known(headers, cookies, query):
            return Refusal(401, "this live view needs its token: open the page with ?token=..., or send it as a bearer")
        return None

    def is_token(self, text: str) -> bool:
        """Whether it is the token, in a time that says nothing about it."""
        return self._token is not None and _same(text, self._token)

    def _is_known(self, headers: Mapping[str, str], cookies: Mapping[str, str], query: Mapping[str, str]) -> bool:
        scheme, _, bearer = headers.get("Authorization", "").partition(" ")
        if scheme:
            return scheme.lower() == "bearer" and self.is_token(bearer.strip())
        if "token" in query:
            return self.is_token(query["token"])
        return _same(cookies.get(self.cookie_name, ""), self.cookie)


def _same(given: str, expected: str) -> bool:
    # Digests are of one length: the time of the comparison does not tell that of the token either.
    return hmac.compare_digest(_digest(given), _digest(expected))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
