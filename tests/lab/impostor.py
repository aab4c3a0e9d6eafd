"""A TLS server with a key of its own that writes down, in a file, every byte that a client entrusts to it.

usage: python -m tests.lab.impostor PORT DIRECTORY
DIRECTORY/heard holds what came inside TLS; DIRECTORY/visits has a line for each connection.
"""

from __future__ import annotations

import socket
import ssl
import sys
from pathlib import Path

from appliance.tunnel import identity


def main() -> None:
    """Serve one client after the other, until killed."""
    port, directory = int(sys.argv[1]), Path(sys.argv[2])
    context = identity.server_context(identity.ensure(directory))
    heard, visits = directory / "heard", directory / "visits"
    heard.touch()
    visits.touch()
    with socket.create_server(("0.0.0.0", port)) as listener:
        while True:
            connection, _ = listener.accept()
            connection.settimeout(5)
            try:
                with context.wrap_socket(connection, server_side=True) as tls:
                    _note(visits, b"shook hands\n")
                    while data := tls.recv(4096):
                        _note(heard, data)
            except (OSError, ssl.SSLError):
                connection.close()


def _note(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


if __name__ == "__main__":
    main()
