"""Requests that other web sites make through a visitor's browser, turned away."""

import ipaddress
import socket
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class Guard:
    """Lets requests pass that were made for this server, by its own page or by a program.

    DNS rebinding: a site gives its own name the address 127.0.0.1, and so its script may read what
    a server there answers; the request still carries the site's name in `Host`. An address in
    numbers cannot be rebound. Cross-site requests carry the site in `Origin`.

    Args:
      app: what answers.
      host: the name that the server was told to listen on.
    """

    def __init__(self, app: ASGIApp, host: str):
        self._app = app
        self._names = {"localhost", socket.gethostname().lower(), host.lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers with 403 or hands on."""
        objection = self._objection(Headers(scope=scope)) if scope["type"] == "http" else None
        if objection is None:
            await self._app(scope, receive, send)
        else:
            refusal = JSONResponse({"error": objection}, 403, {"Connection": "close"})
            await refusal(scope, receive, send)

    def _objection(self, headers: Headers) -> str | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_ours(host):
            return f"Host: {host!r} is no name of this server; take its address, or name it: --host"
        if origin is not None and origin.partition("://")[2] != host:
            return f"Origin: {origin!r} is another site, whose pages may not ask this server"
        return None

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name in self._names or bool(ipaddress.ip_address(name))
        except ValueError:  # neither a host nor an address
            return False
