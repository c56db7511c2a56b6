"""The page served on this machine: a socket, a token, an address to open.

Knows ports and uvicorn. Knows no page.
"""

from __future__ import annotations

import errno
import ipaddress
import secrets
import socket
from collections.abc import Callable

from trainer.studio.app import create_app
from trainer.studio.guard import LOOPBACK
from trainer.studio.source import Source


def serve(
    source: Source,
    *,
    host: str = "127.0.0.1",
    port: int = 8421,
    allow_remote: bool = False,
    token: str | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Serve the page until a signal ends it.

    Args:
        source: what is shown.
        host: the address to listen on.
        port: 0 for a free one.
        allow_remote: whether other machines may reach it, which read and promote with the token.
        token: None for a new one.
        say: told the address.

    Raises:
        ValueError: for a host that other machines reach, without `allow_remote`.
        OSError: when the port is taken, or the host is none of this machine's.
    """
    import uvicorn

    remote = not _is_loopback(host)
    if remote and not allow_remote:
        raise ValueError(
            f"{host} can be reached by other machines, over a connection that anyone between can "
            "read; listen on 127.0.0.1 (and tunnel to it), or give --allow-remote"
        )
    token = token or secrets.token_urlsafe(24)
    with _listening(host, port) as listening:
        at = listening.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        say(f"http://{shown}:{at}/?token={token}")
        app = create_app(source, token, hosts=None if remote else LOOPBACK)
        config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="on")
        uvicorn.Server(config).run(sockets=[listening])


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise OSError(
                f"port {port} of {host} is taken; give --port, or 0 for a free one"
            ) from None
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    return listening
