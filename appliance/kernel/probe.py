"""Can a firewall back-end hold every shape of rule that we use, here? ``python -m appliance.kernel.probe iptables``.

Run as a child of `choose.probe`: it enters a new, empty network namespace first, so nothing of the machine's is
seen or touched, writes each case of `CASES` and reads it back, and prints {case: null or the reason} as JSON. An
empty object means that it may not make a namespace (that takes CAP_SYS_ADMIN).
"""

from __future__ import annotations

import ctypes
import json
import sys
from ipaddress import ip_network
from typing import Final

from appliance.kernel.choose import backend
from appliance.kernel.firewall import FirewallError
from appliance.kernel.rules import Rules

_CLONE_NEWNET: Final = 0x40000000  # uapi/linux/sched.h
_V4: Final = frozenset({(ip_network("10.244.0.0/16"), "tun-probe")})
_V6: Final = frozenset({(ip_network("fd00:10:244::/64"), "tun-probe")})
_DEVICE: Final = frozenset({"tun-probe"})

# Together these hold every shape that firewall.lines can write; tests/appliance/kernel/test_choose.py holds that.
CASES: Final = {
    "the hooks": Rules(vpc="eth0"),
    "accept of replies and drop of INVALID": Rules(forward=_DEVICE, vpc="eth0"),
    "accept and reject per CIDR": Rules(plain=_V4, vpc="eth0"),
    "MASQUERADE": Rules(masquerade=_V4, vpc="eth0"),
    "TCPMSS clamp-mss-to-pmtu": Rules(clamp=_DEVICE, vpc="eth0"),
    "TCPMSS of a CIDR": Rules(plain=_V4, mss=frozenset((net, device, 1300) for net, device in _V4), vpc="eth0"),
    "IPv6 accept of replies and drop of INVALID": Rules(plain=_V6, forward=_DEVICE, vpc="eth0"),
    "IPv6 accept and reject per CIDR": Rules(plain=_V6, vpc="eth0"),
    "IPv6 MASQUERADE": Rules(masquerade=_V6, vpc="eth0"),
    "IPv6 TCPMSS clamp-mss-to-pmtu": Rules(plain=_V6, clamp=_DEVICE, vpc="eth0"),
    "IPv6 TCPMSS of a CIDR": Rules(plain=_V6, mss=frozenset((net, device, 1300) for net, device in _V6), vpc="eth0"),
}


def verdict(name: str) -> dict[str, str | None]:
    """Write and read back every case, in the namespace that we are in; it is left clean."""
    firewall = backend(name)
    found: dict[str, str | None] = {}
    for case, rules in CASES.items():
        try:
            firewall.write(rules)
            found[case] = None
        except FirewallError as failure:
            found[case] = str(failure)
        firewall.purge()
    return found


def main() -> int:
    """Print the verdict on the back-end named by the first argument."""
    libc = ctypes.CDLL(None, use_errno=True)  # os.unshare is there from Python 3.12 on
    if libc.unshare(_CLONE_NEWNET) != 0:
        sys.stdout.write("{}\n")
        return 0
    sys.stdout.write(json.dumps(verdict(sys.argv[1])) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
