"""Which CIDRs the kernel must not carry although they are asked for: what the guard came to be against later. Pure.

Whoever added a CIDR while nobody knew the VPC, and whoever makes a vSwitch where one is carried, makes the answers to
those hosts enter the tunnel. A CIDR that nobody sends here yet is barred: it can be let go of, and no packet that got
through is lost. One that has an entry of ours is in service: to take it away would cut hosts off that do no harm, so it
is shown, and left to a person.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from appliance.guard import Reason, trespasses
from appliance.model import Bar, Intent, Network, Phase

if TYPE_CHECKING:
    from cloud.provider import Vpc


def trespassing(intents: Iterable[Intent], vpc: Vpc) -> Mapping[Network, Reason]:
    """Return what takes from the VPC itself, of what is asked for."""
    asked = (intent.network for intent in intents if intent.phase is Phase.PRESENT)
    found = ((network, trespasses(network, vpc)) for network in asked)
    return {network: why for network, why in found if why is not None}


def bars(
    intents: Iterable[Intent],
    against: Mapping[Network, Reason],
    before: Mapping[Network, Bar],
    ours: Collection[Network],
) -> Mapping[Network, Bar]:
    """Return what is to be barred. `before`: what is; `ours`: where the cloud has an entry of ours, in any table.

    What is barred stays so while the guard is against it, even where a request that landed late made an entry: that
    one is to go. On its way out a CIDR need not be carried once more.
    """
    found = {net: Bar(why.code, why.text) for net, why in against.items() if net in before or net not in ours}
    leaving = {intent.network for intent in intents if intent.phase is not Phase.PRESENT}
    return found | {network: bar for network, bar in before.items() if network in leaving}
