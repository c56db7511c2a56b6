"""Who may see the page: whoever has the token, at an address that this server is meant to have.

Knows headers, cookies and tokens. Knows no page. As Jupyter does it: the token comes in the URL
once, a cookie carries it from then on. A page of another site can neither read this one (the
cookie stays home, SameSite) nor reach it by a name that it points here (the Host header).
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from urllib.parse import urlencode, urlsplit

from fastapi import Request, Response
from fastapi.responses import PlainTextResponse, RedirectResponse

COOKIE = "cowest-studio"
LOOPBACK = ("127.0.0.1", "localhost", "::1")

_HEADERS = {
    # Nothing from elsewhere, and no script in the page: what is stored stays text.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # no-referrer would make a form's Origin "null"
    "Cache-Control": "no-store",
}

Next = Callable[[Request], Awaitable[Response]]


class Guard:
    """The check before every page.

    Args:
        token: what has to be known.
        hosts: names and addresses that the server answers to; None is any.
    """

    def __init__(self, token: str, hosts: tuple[str, ...] | None = LOOPBACK) -> None:
        self._token, self._hosts = token, hosts

    async def __call__(self, request: Request, go_on: Next) -> Response:
        """Refuse, or answer with headers that let nothing foreign in."""
        response = self._refused(request) or self._admitted(request) or await go_on(request)
        response.headers.update(_HEADERS)
        return response

    def _refused(self, request: Request) -> Response | None:
        host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
        if self._hosts is not None and host not in self._hosts:
            return PlainTextResponse(f"this server does not answer as {host!r}\n", 400)
        if request.method not in ("GET", "HEAD"):
            origin = request.headers.get("origin")
            if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
                return PlainTextResponse("a page of another site sent this\n", 403)
        return None

    def _admitted(self, request: Request) -> Response | None:
        """None for one who may go on; else what to answer."""
        given = request.query_params.get("token")
        if given is not None and self._is_token(given):
            rest = [(k, v) for k, v in request.query_params.multi_items() if k != "token"]
            query = f"?{urlencode(rest)}" if rest else ""
            response = RedirectResponse(f"{request.url.path}{query}", 303)
            response.set_cookie(COOKIE, self._token, httponly=True, samesite="strict")
            return response
        if given is None and self._is_token(request.cookies.get(COOKIE, "")):
            return None
        wrong = "the token is wrong" if given is not None else "a token is missing"
        return PlainTextResponse(
            f"{wrong}: open the address that `cowest studio` printed, with its ?token=\n", 401
        )

    def _is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self._token.encode())
