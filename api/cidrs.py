"""/v1/cidrs: state which CIDRs the VPC shall reach through this machine.

A POST that asks for what is there already is no error and changes nothing, so it is safe to repeat. Fields that are
left out of it ask for nothing: they take their defaults for a new CIDR, and match whatever an existing one has.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from fastapi import APIRouter, Response
from pydantic import ConfigDict, Field, StrictBool
from pydantic.dataclasses import dataclass

from api.parts import Parts, asked_facts, blind_spot, known_facts
from api.problem import Problem, Reason, responses
from appliance import guard
from appliance.intent import UnknownCidr
from appliance.model import BadCidr, Intent, Network, Phase, parse_cidr
from appliance.status import CidrStatus, Layer

_LONGEST = 64  # characters; the longest CIDR has 43


@dataclass(frozen=True, slots=True)
class NewCidr:
    """The body of POST /v1/cidrs. `via` may be left out where there is exactly one link."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    cidr: Annotated[str, Field(max_length=_LONGEST, examples=["10.244.0.0/16"])]
    via: Annotated[str | None, Field(max_length=_LONGEST, examples=["hk"])] = None
    snat: StrictBool | None = None  # "yes" and 1 are typing errors
    comment: Annotated[str | None, Field(max_length=200, examples=["pods in Hong Kong"])] = None


@dataclass(frozen=True, slots=True)
class LayerResource:
    """How far one layer is: `state` is ok, pending, error or absent."""

    state: str
    detail: str
    code: str


@dataclass(frozen=True, slots=True)
class CidrLayers:
    """The layers that a CIDR goes through."""

    kernel: LayerResource
    cloud: LayerResource


@dataclass(frozen=True, slots=True)
class CidrResource:
    """A CIDR as it stands. `phase`: present, leaving or withdrawn; `created_at`: seconds since the epoch."""

    cidr: str
    via: str
    snat: bool
    comment: str
    phase: str
    created_at: float
    layers: CidrLayers
    warnings: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class CidrList:
    """The body of GET /v1/cidrs, in numerical order."""

    cidrs: tuple[CidrResource, ...]


def statuses(parts: Parts) -> tuple[CidrStatus, ...]:
    """Return every CIDR through all layers, with what the guard would say of it now."""
    facts = known_facts(parts)
    return tuple(_status(parts, intent, guard.judge(intent.network, facts, via=intent.via)) for intent in facts.intents)


def status_of(parts: Parts, intent: Intent) -> CidrStatus:
    """Return one CIDR through all layers, with what the guard would say of it now."""
    return _status(parts, intent, guard.judge(intent.network, known_facts(parts), via=intent.via))


def resource(cidr: CidrStatus) -> CidrResource:
    """Return the CIDR as the API shows it."""
    intent = cidr.intent
    return CidrResource(
        cidr=str(intent.network),
        via=intent.via,
        snat=intent.snat,
        comment=intent.comment,
        phase=intent.phase.value,
        created_at=intent.created_at,
        layers=CidrLayers(_layer(cidr.kernel), _layer(cidr.cloud)),
        warnings=tuple(Reason(each.code, each.text, each.next_step) for each in cidr.warnings),
    )


def router(parts: Parts) -> APIRouter:
    """Return the endpoints."""
    routes = APIRouter(tags=["cidrs"])

    @routes.get("/v1/cidrs", responses=responses(503))
    async def ls() -> CidrList:
        """List the CIDRs with the state of each layer."""
        return CidrList(tuple(resource(each) for each in statuses(parts)))

    @routes.post("/v1/cidrs", status_code=201, responses={200: {"model": CidrResource}, **responses(409, 422, 503)})
    async def add(new: NewCidr, response: Response) -> CidrResource:
        """Ask for a CIDR; 201 where that is news, 200 where it was so already."""
        network = network_of(new.cidr)
        if (same := _already(parts, network, new)) is not None:
            response.status_code = 200
            return resource(_status(parts, same, guard.judge(network, known_facts(parts), via=same.via)))
        _comment(new)
        facts = await asked_facts(parts)  # nothing waits from here to the put
        _refuse(network, guard.judge(network, facts))  # before "which link?": no answer to that would mend it
        via = _via(new, facts.links)
        reasons = guard.judge(network, facts, via=via)
        _refuse(network, reasons)
        if (same := _already(parts, network, new)) is None:
            snat = True if new.snat is None else new.snat
            parts.store.put(Intent(network, via, snat=snat, comment=new.comment or ""))
        else:
            response.status_code = 200
        intent = parts.store.get(network)
        assert intent is not None  # noqa: S101  (it was written a line ago, by the only writer)
        return resource(_status(parts, intent, (*reasons, *blind_spot(parts))))

    @routes.get("/v1/cidrs/{cidr:path}", responses=responses(404, 422, 503))
    async def show(cidr: str) -> CidrResource:
        """Show one CIDR."""
        network = network_of(cidr)
        intent = parts.store.get(network)
        if intent is None:
            raise unknown(network)
        return resource(_status(parts, intent, guard.judge(network, known_facts(parts), via=intent.via)))

    @routes.delete("/v1/cidrs/{cidr:path}", status_code=202, responses=responses(404, 422, 503))
    async def rm(cidr: str) -> CidrResource:
        """Let go of a CIDR: it leaves the cloud, then the kernel, then this list."""
        network = network_of(cidr)
        try:
            intent = parts.store.leave(network)
        except UnknownCidr:
            raise unknown(network) from None
        return resource(_status(parts, intent, ()))

    return routes


def network_of(text: str) -> Network:
    """Read a CIDR out of a request; raise the problem that says how to write it."""
    if len(text) > _LONGEST:
        text = text[:_LONGEST] + "..."
    try:
        return parse_cidr(text)
    except BadCidr as error:
        what, _, mend = str(error).rpartition(": ")
        step = mend if mend.startswith(("did you mean ", "write ")) else _SPELLING
        raise Problem(422, "bad-cidr", "This is not a CIDR", str(error), [Reason("bad-cidr", what, step)]) from None


_SPELLING = "write a network and its prefix length, such as 10.244.0.0/16"


def _already(parts: Parts, network: Network, new: NewCidr) -> Intent | None:
    """Return the record if it is what is asked for; raise where it differs."""
    intent = parts.store.get(network)
    if intent is None or intent.phase is not Phase.PRESENT:
        return None
    asked = {"via": new.via, "snat": new.snat, "comment": new.comment}
    reasons = [
        Reason(f"{name}-differs", f"{network} is there with {name} {getattr(intent, name)!r}, not {value!r}", _DIFFERS)
        for name, value in asked.items()
        if value is not None and value != getattr(intent, name)
    ]
    if reasons:
        raise Problem(409, "cidr-exists", "This CIDR is there already, and differs", reasons=reasons)
    return intent


_DIFFERS = "leave it out, or `nexthop cidr rm` the CIDR first"


def _via(new: NewCidr, links: frozenset[str]) -> str:
    """Return the link that is meant."""
    if new.via is not None:
        return new.via
    if len(links) == 1:
        return next(iter(links))
    if not links:
        reason = Reason("no-link", "there is no link yet", "`nexthop link join NAME` one first")
    else:
        names = ", ".join(sorted(links))
        reason = Reason("via-missing", f"there are several links: {names}", 'say which one (`--via`, "via")')
    raise Problem(422, "cidr-refused", "This CIDR cannot be carried", reasons=[reason])


def _comment(new: NewCidr) -> None:
    if new.comment is not None and not new.comment.isprintable():
        reason = Reason("comment", "the comment holds control characters", "write it on one line of plain text")
        raise Problem(422, "invalid-request", "The request is not as this resource takes it", reasons=[reason])


def _refuse(network: Network, reasons: tuple[guard.Reason, ...]) -> None:
    found = guard.refused(reasons)
    if found:
        given = [Reason(each.code, each.text, each.next_step) for each in found]
        raise Problem(422, "cidr-refused", f"{network} cannot be carried", reasons=given)


def _status(parts: Parts, intent: Intent, warnings: tuple[guard.Reason, ...]) -> CidrStatus:
    return CidrStatus(intent, parts.kernel.layer(intent.network), parts.cloud.layer(intent.network), warnings)


def _layer(layer: Layer) -> LayerResource:
    return LayerResource(layer.state.value, layer.detail, layer.code)


def unknown(network: Network) -> Problem:
    """Return the answer to a CIDR that nobody asked for."""
    reason = Reason("cidr-unknown", f"{network} is not in the list", "see what is: nexthop cidr ls")
    return Problem(404, "cidr-unknown", "Nobody asked for this CIDR", reasons=[reason])
