"""How answers find back where a CIDR's packets keep their source: what has to be so at the far end. Pure.

With SNAT the far end answers the tunnel's address, which it knows. Without, it must take packets from the VPC's own
addresses out of the tunnel, and route these back into it. Neither can be seen from here: so it is said, every time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.guard import Reason, Severity

if TYPE_CHECKING:
    from appliance.model import Intent
    from cloud.provider import Vpc


def judge(intent: Intent, vpc: Vpc | None) -> tuple[Reason, ...]:
    """Return what to see to; nothing where the source is masqueraded."""
    if intent.snat:
        return ()
    sources = ", ".join(str(cidr) for cidr in vpc.cidrs) if vpc is not None else "the VPC's CIDRs"
    text = (
        f"without SNAT hosts keep their address: the far end must take {sources} from link {intent.via} and route it "
        "back there; neither can be seen from here"
    )
    return (Reason("return-route", Severity.WARN, text, f"see to it at both, then ping {intent.network} from a host"),)
