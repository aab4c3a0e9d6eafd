"""`python -m tests.lab.nonces DIR MODULE ...`: that program of the tunnel, which notes all that it seals with.

Each process writes a file of its own in DIR: 16 bytes of the key's SHA-256 and the 8 bytes of the nonce that are not
zero, for every seal, written before it is done. The data planes that it starts do the same. Nothing of this is in the
programs themselves.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import runpy
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.ciphers import aead

from appliance.tunnel.orphan import WORKER

if TYPE_CHECKING:
    Bytes = bytes | bytearray | memoryview

_KEY: Final = 16
_NOTE: Final = _KEY + 8
_GTUN: Final = '"appliance.tunnel.gtun'  # and gtund, in a list of units


def noting(units: str, directory: Path) -> str:
    """Return a supervisor's list of units with the tunnel's ends noting in `directory`."""
    return units.replace(_GTUN, f'"{__name__}", "{directory}", {_GTUN}')


def noted(directory: Path) -> Counter[bytes]:
    """Return how often each pair of key and nonce was sealed with, by all processes together."""
    found: Counter[bytes] = Counter()
    for file in directory.iterdir():
        data = file.read_bytes()
        found.update(data[start : start + _NOTE] for start in range(0, len(data), _NOTE))
    return found


def keys(pairs: Counter[bytes]) -> int:
    """Return how many keys there are in what `noted` returns."""
    return len({pair[:_KEY] for pair in pairs})


class _Noting:
    """An AES-GCM that tells."""

    file = -1

    def __init__(self, key: bytes) -> None:
        self._real = _REAL(key)
        self._key = hashlib.sha256(key).digest()[:_KEY]
        self.decrypt_into = self._real.decrypt_into

    def encrypt_into(self, nonce: bytes, data: Bytes, associated: Bytes | None, into: Bytes) -> int:
        os.write(_Noting.file, self._key + nonce[-8:])
        return self._real.encrypt_into(nonce, data, associated, into)


_REAL: Final = aead.AESGCM


def _start_workers_likewise(directory: str) -> None:
    start = asyncio.create_subprocess_exec

    async def started(*argv: Any, **options: Any) -> asyncio.subprocess.Process:
        if WORKER in argv:
            place = argv.index(WORKER)
            argv = (*argv[:place], __spec__.name, directory, *argv[place:])
        return await start(*argv, **options)

    asyncio.create_subprocess_exec = started


def main() -> None:
    """Run the program."""
    _, directory, module, *rest = sys.argv
    _start_workers_likewise(directory)
    if module == WORKER:
        _Noting.file = os.open(f"{directory}/{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        aead.AESGCM = _Noting  # type: ignore[assignment]
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__")


if __name__ == "__main__":
    main()
