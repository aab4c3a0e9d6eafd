"""The listener for those who come over the network: where it listens, with which certificate, under which names."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from api.certificate import BadCertificate, identity, own
from api.parts import About
from api.server import Tls

if TYPE_CHECKING:
    from appliance.config import Config

_BACKLOG = 128


class Unusable(Exception):
    """The address or the certificate cannot be used; the message says what to do."""


def listen(config: Config) -> tuple[Tls | None, str]:
    """Return the listener and its certificate's fingerprint; none where none is configured. Raises `Unusable`."""
    api = config.api
    if not api.listen:
        return None, ""
    try:
        if api.certificate is not None and api.key is not None:
            known = identity(api.certificate, api.key)
        else:
            file = own(config.paths.state / "api", names(config))
            known = identity(file, file)
    except BadCertificate as error:
        raise Unusable(str(error)) from None
    except OSError as error:
        raise Unusable(f"the API's certificate cannot be made: {error}: free or mend the state directory") from None
    try:
        listener = bound(api.listen)
    except OSError as error:
        raise Unusable(f"cannot listen on {api.listen}: {error.strerror}: set [api] listen in nexthop.toml") from None
    return Tls(listener, known.context), known.fingerprint


def bound(listen: str) -> socket.socket:
    """Return a socket that listens on ADDRESS:PORT; raise `OSError`."""
    address, _, port = listen.rpartition(":")
    address = address.strip("[]")
    listener = socket.socket(socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Head and body are two writes: with Nagle's algorithm the second waits 40 ms for the client's delayed ACK.
        # What is accepted inherits it; asyncio sets it only where the socket was made with IPPROTO_TCP.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((address, int(port)))
        listener.listen(_BACKLOG)
        listener.setblocking(False)  # noqa: FBT003  (the socket's own signature)
    except BaseException:
        listener.close()
        raise
    return listener


def about(config: Config, fingerprint: str, source: Path | None) -> About:
    """Return what the daemon says of itself."""
    from api.app import version  # noqa: PLC0415

    files = (config.api.key, Path(config.cloud.credentials) if config.cloud.credentials.startswith("/") else None)
    secrets = tuple(each for each in files if each is not None)
    return About(version(), config.api.listen, fingerprint, names(config), source, secrets)


def names(config: Config) -> tuple[str, ...]:
    """Return the names of this machine."""
    address = config.api.listen.rpartition(":")[0].strip("[]")
    listening = () if not address or ip_address(address).is_unspecified else (address,)
    return tuple(dict.fromkeys((*config.api.hosts, "localhost", socket.gethostname().lower(), *listening)))
