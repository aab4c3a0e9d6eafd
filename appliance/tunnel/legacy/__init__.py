"""The protocol of gtun 2.0.2, both ends, so that one end of an old link can be moved at a time. It is NOT ENCRYPTED.

Never a fallback: it runs only where somebody asks for it by name, on a port, device and address pool of its own, and
says at its start and in its status what it is. Everything that its originals got wrong is left out, nothing that they
would notice: see `message` for the wire, `client` and `server` for the two ends.
"""

from __future__ import annotations

from typing import Final

WARNING: Final = "NOT ENCRYPTED: the key and every packet of gtun 2.0.2's protocol can be read and changed on the way"
