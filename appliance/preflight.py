"""`python -m appliance.preflight ROLE CONFIG [DATABASE]`: could this release run here? Run by it, before it does.

It reads this machine's configuration, and brings a copy of the database to its own schema. The copy is the caller's to
throw away. Exit 0, or 1 with the reason on standard error.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from appliance import config
from appliance.firstboot import Role
from appliance.intent import IntentStore, StoreUnavailable
from appliance.tunnel import config as tunnel

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Look, and say what is in the way."""
    parser = argparse.ArgumentParser(prog="python -m appliance.preflight", description="Could this release run here?")
    parser.add_argument("role", type=Role)
    parser.add_argument("config", type=Path)
    parser.add_argument("database", type=Path, nargs="?", help="a copy: it is brought to this release's schema")
    options = parser.parse_args(argv)
    try:
        if options.role is Role.GTUND:
            tunnel.read_gtund(options.config)
        else:
            config.load(options.config)
        if options.database is not None:
            store = IntentStore(options.database)
            try:
                store.all()
            finally:
                store.close()
    except (config.ConfigError, tunnel.ConfigError, StoreUnavailable) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
