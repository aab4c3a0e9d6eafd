"""A TCP connection that is held through whatever happens: `held.py answer ADDRESS PORT`, `held.py ask ADDRESS PORT`.

Who asks sends a numbered line, waits for it to come back, and prints the seconds that each took; a connection that
breaks ends it with exit 1 and the reason. So a line in its output is a line that made the whole way and back.
"""

from __future__ import annotations

import socket
import sys
import time

PAUSE = 0.1


def answer(address: str, port: int) -> None:
    """Send back whatever comes, one connection after the other."""
    with socket.create_server((address, port)) as listener:
        while True:
            connection, _ = listener.accept()
            with connection:
                while data := connection.recv(4096):
                    connection.sendall(data)


def ask(address: str, port: int) -> None:
    """Send and wait, for ever."""
    with socket.create_connection((address, port), timeout=30) as connection:
        connection.settimeout(None)
        lines = connection.makefile("rw")
        for number in range(sys.maxsize):
            begin = time.monotonic()
            lines.write(f"{number}\n")
            lines.flush()
            if lines.readline() != f"{number}\n":
                raise ConnectionResetError("the connection ended")
            print(f"{time.monotonic() - begin:.3f}", flush=True)  # noqa: T201 - its output is what it is for
            time.sleep(PAUSE)


if __name__ == "__main__":
    try:
        {"answer": answer, "ask": ask}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
    except OSError as error:
        sys.exit(f"the connection broke: {error}")
