"""Can a firewall back-end hold every shape of rule that we use, here? ``python -m appliance.kernel.probe iptables``.

Run as a child of `choose.probe`: it enters a new, empty network namespace first, so nothing of the machine's is
seen or touched, writes each case of `CASES` and reads it back, and prints {case: null or the reason} as JSON. Making
one takes CAP_SYS_ADMIN, which nexthop-forward does not have: then it is made inside of a new user namespace, which
anybody may make (user_namespaces(7)) unless the machine forbids it, or we are in a chroot. Then the rules are only put
into words, which is where python-iptables fails if it does.
"""

from __future__ import annotations

import ctypes
import json
import sys
from ipaddress import ip_network
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING, Final

from appliance.kernel.choose import backend
from appliance.kernel.firewall import FirewallError
from appliance.kernel.rules import Rules

if TYPE_CHECKING:
    from collections.abc import Callable

_IF_INET6: Final = Path("/proc/net/if_inet6")
_CLONE_NEWNET: Final = 0x40000000  # uapi/linux/sched.h
_CLONE_NEWUSER: Final = 0x10000000
# uapi/linux/capability.h, uapi/linux/prctl.h
_NEEDED: Final = (12, 13)  # CAP_NET_ADMIN, CAP_NET_RAW
_VERSION_3: Final = 0x20080522
_HEADER: Final = Struct("=Ii")  # version, pid
_DATA: Final = Struct("=6I")  # effective, permitted, inheritable; each for capabilities 0 to 31, then the others
_PR_CAP_AMBIENT: Final = 47
_RAISE: Final = 2
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
    "guarding a tunnel": Rules(plain=_V4, vpc="eth0", guarded=_DEVICE, inbound=_DEVICE, own=_V4),
    "IPv6 accept of replies and drop of INVALID": Rules(plain=_V6, forward=_DEVICE, vpc="eth0"),
    "IPv6 accept and reject per CIDR": Rules(plain=_V6, vpc="eth0"),
    "IPv6 MASQUERADE": Rules(masquerade=_V6, vpc="eth0"),
    "IPv6 TCPMSS clamp-mss-to-pmtu": Rules(plain=_V6, clamp=_DEVICE, vpc="eth0"),
    "IPv6 TCPMSS of a CIDR": Rules(plain=_V6, mss=frozenset((net, device, 1300) for net, device in _V6), vpc="eth0"),
    "IPv6 guarding a tunnel": Rules(plain=_V6, vpc="eth0", guarded=_DEVICE, inbound=_DEVICE, own=_V6, six=True),
}


def verdict(name: str) -> dict[str, str | None]:
    """Write and read back every case, in the namespace that we are in; it is left clean."""
    firewall = backend(name, alone=True)  # a lock that is held elsewhere says nothing of what can be held here
    found: dict[str, str | None] = {}
    for case, rules in CASES.items():
        found[case] = _failure(firewall.write, rules)
        firewall.purge()
    return found


def words(name: str) -> dict[str, str | None]:
    """Put every case into words, without the kernel."""
    firewall = backend(name)
    found = {case: _failure(firewall.spell, rules) for case, rules in CASES.items()}
    if not _IF_INET6.exists():
        found |= {case: "this machine has no IPv6" for case in CASES if case.startswith("IPv6")}
    return found


def _failure(attempt: Callable[[Rules], None], rules: Rules) -> str | None:
    try:
        attempt(rules)
    except FirewallError as failure:
        return str(failure)
    return None


def _enter() -> bool:
    """Go into a new network namespace, with a right to everything in there; return whether that was possible."""
    libc = ctypes.CDLL(None, use_errno=True)  # os.unshare is there from Python 3.12 on
    if libc.unshare(_CLONE_NEWNET) == 0:
        return True
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        return False
    # We are nobody in there, and only ambient capabilities outlast the execution of nft (capabilities(7)).
    bits = sum(1 << capability for capability in _NEEDED)
    capset = libc.capset(_HEADER.pack(_VERSION_3, 0), _DATA.pack(bits, bits, bits, 0, 0, 0))
    return capset == 0 and all(libc.prctl(_PR_CAP_AMBIENT, _RAISE, each, 0, 0) == 0 for each in _NEEDED)


def main() -> int:
    """Print the verdict on the back-end named by the first argument."""
    judge = verdict if _enter() else words
    sys.stdout.write(json.dumps(judge(sys.argv[1])) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
