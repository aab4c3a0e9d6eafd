"""`python -m cloud.emulator --config world.toml`: see README.md."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from cloud.emulator.serve import serve
from cloud.emulator.worldfile import BadWorld, WorldFile, read_world


async def _run(file: WorldFile) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if not file.router.kernel:
        await serve(file, None, stop)
        return
    # Here, so that a world without a router needs neither root nor pyroute2.
    from cloud.emulator.router import Router  # noqa: PLC0415

    async with Router(file) as router:
        await serve(file, router, stop)


def main() -> int:
    """Run until SIGTERM or SIGINT; 0 then, 2 when the world or the machine does not allow it."""
    parser = argparse.ArgumentParser(prog="python -m cloud.emulator", description="An Aliyun VPC on one machine.")
    parser.add_argument("--config", required=True, type=Path, metavar="world.toml")
    options = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    try:
        file = read_world(options.config.read_text())
    except (BadWorld, OSError) as error:
        parser.error(str(error))
    try:
        asyncio.run(_run(file))
    except (OSError, LookupError, BadWorld) as error:
        logging.getLogger(__name__).error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
