"""A CIDR as the API shows it: what was asked for, how far each layer is, and its ETag.

The ETag stands for what was asked for, not for how far it is: two people who change the same CIDR from the same ETag
are told apart, and a route that has just been installed spoils nobody's change.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Annotated, Final

from fastapi import Path
from pydantic.dataclasses import dataclass
from starlette.convertors import Convertor, register_url_convertor

from api.bodies import CIDR_PATTERN, LONGEST
from api.parts import Parts, known_facts
from api.problem import Problem, Reason
from api.schema import SHOWN
from appliance import guard, wayback
from appliance.model import BadCidr, Intent, Network, Phase, parse_cidr
from appliance.options import mss_text
from appliance.status import CidrStatus, Layer

CidrPath = Annotated[
    str,
    Path(
        description="The CIDR itself, its slash as it is or as %2F.",
        examples=["10.244.0.0/16"],
        json_schema_extra={"pattern": CIDR_PATTERN},
    ),
]


class _CidrConvertor(Convertor[str]):
    """What stands for a CIDR in a path: anything, slashes too, except for what is asked of one."""

    regex = r".*(?<!/adopt)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("cidr", _CidrConvertor())


@dataclass(frozen=True, slots=True, config=SHOWN)
class LayerResource:
    """How far one layer is with one CIDR."""

    state: str
    """`ok`, `pending` (comes by itself), `error` (takes somebody), or `absent` (not there, and not meant to be)."""
    detail: str
    """The same for people."""
    code: str
    """Why, for machines; may be empty."""


@dataclass(frozen=True, slots=True, config=SHOWN)
class CidrLayers:
    """The layers that a CIDR goes through."""

    kernel: LayerResource
    """Whether this machine carries it."""
    cloud: LayerResource
    """Whether the VPC's route tables send it here."""


@dataclass(frozen=True, slots=True, config=SHOWN)
class ChangeResource:
    """One step of a plan."""

    action: str
    """`create`, `modify`, `delete`, `wait`, `blocked` or `stray`."""
    cidr: str
    """The CIDR."""
    table: str
    """The cloud's route table, or `kernel` for this machine."""
    now: str
    """What is there now, for people."""
    text: str
    """What would be done, or why nothing is, for people."""


@dataclass(frozen=True, slots=True, config=SHOWN)
class CidrResource:
    """A CIDR as it stands."""

    cidr: str
    """The network."""
    via: str
    """The link that carries it."""
    snat: bool
    """Whether what enters the tunnel is masqueraded, so that the far end needs no route back."""
    comment: str
    """A note of whoever asked for it."""
    mss: str
    """What TCP's MSS is held to: `auto` (what the path takes), `off`, or bytes."""
    probe: str
    """What is asked for a sign of life; empty for nothing."""
    when_down: str
    """Whether the cloud's entry stays while the link is down (`keep`) or goes (`withdraw`)."""
    hold_down: float
    """How many seconds a link is down before the entry is withdrawn."""
    phase: str
    """`present`, `leaving` (asked to go), or `withdrawn` (gone from the cloud, about to leave the kernel)."""
    created_at: float
    """When it was asked for, in seconds since the epoch."""
    etag: str
    """Stands for what was asked for; send it as `If-Match: "..."` to change exactly this."""
    layers: CidrLayers
    """How far each layer is."""
    path: LayerResource
    """Whether its probe target answers through the tunnel; absent without one."""
    warnings: tuple[Reason, ...] = ()
    """What is allowed, and still worth a second look."""
    plan: tuple[ChangeResource, ...] = ()
    """With `dry_run` only: what would be done."""


def etag(intent: Intent) -> str:
    """Return what stands for everything that was asked for of a CIDR."""
    fields = (
        *(intent.network, intent.via, intent.snat, intent.comment, intent.phase.value, intent.created_at),
        *(intent.mss, intent.probe, intent.when_down.value, intent.hold_down),
    )
    return hashlib.sha256("\0".join(map(str, fields)).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def statuses(parts: Parts) -> tuple[CidrStatus, ...]:
    """Return every CIDR through all layers, with what the guard would say of it now."""
    facts = known_facts(parts)
    return tuple(
        status_with(parts, intent, guard.judge(intent.network, facts, via=intent.via)) for intent in facts.intents
    )


def status_of(parts: Parts, intent: Intent) -> CidrStatus:
    """Return one CIDR through all layers, with what the guard would say of it now."""
    return status_with(parts, intent, guard.judge(intent.network, known_facts(parts), via=intent.via))


def status_with(parts: Parts, intent: Intent, warnings: tuple[guard.Reason, ...]) -> CidrStatus:
    """Return one CIDR through all layers, with these warnings."""
    network = intent.network
    if intent.phase is Phase.PRESENT:
        warnings += wayback.judge(intent, parts.cloud.vpc())
    found = CidrStatus(intent, parts.kernel.layer(network), parts.cloud.layer(network), warnings)
    return found if parts.paths is None else replace(found, path=parts.paths.layer(network))


def resource(cidr: CidrStatus, plan: tuple[ChangeResource, ...] = ()) -> CidrResource:
    """Return the CIDR as the API shows it."""
    intent = cidr.intent
    return CidrResource(
        cidr=str(intent.network),
        via=intent.via,
        snat=intent.snat,
        comment=intent.comment,
        mss=mss_text(intent.mss),
        probe=str(intent.probe or ""),
        when_down=intent.when_down.value,
        hold_down=intent.hold_down,
        phase=intent.phase.value,
        created_at=intent.created_at,
        etag=etag(intent),
        layers=CidrLayers(layer(cidr.kernel), layer(cidr.cloud)),
        path=layer(cidr.path),
        warnings=tuple(Reason(each.code, each.text, each.next_step) for each in cidr.warnings),
        plan=plan,
    )


def layer(found: Layer) -> LayerResource:
    """Return a layer as the API shows it."""
    return LayerResource(found.state.value, found.detail, found.code)


def network_of(text: str) -> Network:
    """Read a CIDR out of a request; raise the problem that says how to write it."""
    if len(text) > LONGEST:
        text = text[:LONGEST] + "..."
    try:
        return parse_cidr(text)
    except BadCidr as error:
        what, _, mend = str(error).rpartition(": ")
        step = mend if mend.startswith(("did you mean ", "write ")) else _SPELLING
        raise Problem(422, "bad-cidr", "This is not a CIDR", str(error), [Reason("bad-cidr", what, step)]) from None


_SPELLING: Final = "write a network and its prefix length, such as 10.244.0.0/16"


def known(parts: Parts, network: Network) -> Intent:
    """Return the record of a CIDR; raise the problem that says that there is none."""
    intent = parts.store.get(network)
    if intent is None:
        raise unknown(network)
    return intent


def unknown(network: Network) -> Problem:
    """Return the answer to a CIDR that nobody asked for."""
    reason = Reason("cidr-unknown", f"{network} is not in the list", "see what is: nexthop cidr ls")
    return Problem(404, "cidr-unknown", "Nobody asked for this CIDR", reasons=[reason])
