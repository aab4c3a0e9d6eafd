"""What the played appliance says: bodies of the API in the states that a console has to show."""

from __future__ import annotations

import math
import time
from typing import Any

ID = "i-wz9nexthop0001"
TABLE, MORE = "vtb-wz9system", "vtb-wz9more"
PODS, SERVICES = "10.244.0.0/16", "10.96.0.0/16"


def layer(state: str = "ok", detail: str = "", code: str = "") -> dict[str, str]:
    return {"state": state, "detail": detail, "code": code}


def cidr(name: str, **other: Any) -> dict[str, Any]:
    kernel, cloud = other.pop("kernel", layer()), other.pop("cloud", layer())
    return {
        "cidr": name,
        "via": "hk",
        "snat": True,
        "comment": "",
        "mss": "auto",
        "probe": "",
        "when_down": "keep",
        "hold_down": 30.0,
        "phase": "present",
        "created_at": 1_790_000_000.0,
        "layers": {"kernel": kernel, "cloud": cloud},
        "path": layer("absent", "no probe target", "no-probe"),
        "warnings": [],
        "etag": "7",
        **other,
    }


def link(name: str = "hk", **other: Any) -> dict[str, Any]:
    return {
        "name": name,
        "device": f"tun-{name}",
        "server": "203.0.113.10:9443",
        "state": "up",
        "code": "",
        "reason": "",
        "address": "100.64.240.50/24",
        "peer": "100.64.240.1",
        "since": time.time() - 190_000,
        "retry_at": None,
        "rtt_ms": 23.7,
        "counters": {"rx_bytes": 81_204_331_002, "tx_bytes": 5_120_334_120},
        **other,
    }


def status(**other: Any) -> dict[str, Any]:
    cidrs = [
        cidr(SERVICES, comment="services"),
        cidr(PODS, comment="pods in Hong Kong", probe="tcp:10.244.1.20:80", path=layer("ok", "answered")),
    ]
    return {
        "version": "0.1.0",
        "verdict": {"level": "ok", "text": "2 of 2 CIDRs ready, 1 of 1 links up", "next_step": ""},
        "findings": [],
        "links": [link()],
        "cidrs": cidrs,
        "firewall": {"name": "nftables", "fallback_reason": ""},
        "cloud": {
            "provider": "aliyun",
            "vpc_id": "vpc-wz9shenzhen",
            "instance_id": ID,
            "tables": [TABLE, MORE],
            "error": None,
            "strays": [],
        },
        "api": {"listen": "0.0.0.0:8443", "fingerprint": "AB:CD"},
        "drift_repairs": {},
        **other,
    }


def entry(name: str, owner: str = "ours", hop: str = ID, note: str = "") -> dict[str, str]:
    kind = "Instance" if hop else "local"
    return {"cidr": name, "next_hop": hop, "next_hop_type": kind, "owner": owner, "status": "Available", "note": note}


def routes(**other: Any) -> dict[str, Any]:
    system = [entry("172.18.0.0/16", "system", ""), entry("100.64.0.0/10", "system", "")]
    ours = [entry(PODS), entry(SERVICES)]
    vpn = entry("10.8.0.0/16", "foreign", "vpn-wz9office", "made by somebody else, and left alone")
    tables = [
        {
            "id": TABLE,
            "kind": "System",
            "name": "",
            "vswitches": ["vsw-hosts", "vsw-app"],
            "entries": [*ours, vpn, *system],
        },
        {"id": MORE, "kind": "Custom", "name": "more", "vswitches": ["vsw-more"], "entries": [*ours, *system]},
    ]
    quota = {TABLE: {"ours": 2, "others": 1, "limit": 200}, MORE: {"ours": 2, "others": 0, "limit": 200}}
    return {"observed_at": time.time() - 4, "tables": tables, "quota": quota, **other}


def traffic(count: int = 280) -> dict[str, Any]:
    """Return samples of a link with a busy evening behind it."""
    now = time.time()
    at = [now - 2.0 * (count - number) for number in range(count)]

    def wave(number: int, period: float) -> float:
        return 0.5 + 0.5 * math.sin(2 * math.pi * number / period)

    rx = [4e6 + 38e6 * wave(n, 150) ** 3 + 5e6 * wave(n, 9) for n in range(count)]
    tx = [6e5 + 4e6 * wave(n, 110) ** 2 + 4e5 * wave(n, 7) for n in range(count)]
    rtt = [23.2 + 1.1 * wave(n, 13) + (14 if n % 97 < 3 else 0) for n in range(count)]
    loss = [0.012 if n % 97 < 3 else 0.0 for n in range(count)]
    return {"interval_s": 2.0, "links": {"hk": {"at": at, "tx_bps": tx, "rx_bps": rx, "rtt_ms": rtt, "loss": loss}}}


def events() -> list[dict[str, Any]]:
    now = time.time()
    lines = [
        (4000, "root", "joined", "", "link hk"),
        (3940, "root", "added", SERVICES, "via hk"),
        (3925, "root", "added", PODS, "via hk, probe tcp:10.244.1.20:80"),
        (1260, "forward", "repaired", PODS, "the route was missing, and is back"),
        (300, "attract", "repaired", SERVICES, f"{MORE}: the entry was removed by somebody else, and is back"),
    ]
    return [
        {"id": number, "at": now - ago, "who": who, "what": what, "cidr": name, "detail": detail}
        for number, (ago, who, what, name, detail) in enumerate(lines, 1)
    ]


def healthy() -> dict[str, Any]:
    return {"status": status(), "routes": routes(), "traffic": traffic(), "events": events()}


def empty() -> dict[str, Any]:
    """A machine on its first day."""
    step = "`nexthop link join NAME` takes a token from the far end"
    advice = {"level": "ok", "code": "no-link", "text": "there is no link yet", "next_step": step, "about": ""}
    verdict = {key: advice[key] for key in ("level", "text", "next_step")}
    bare = routes()
    bare["tables"] = [{**bare["tables"][0], "entries": [entry("172.18.0.0/16", "system", "")]}]
    return {
        "status": status(verdict=verdict, findings=[advice], links=[], cidrs=[]),
        "routes": bare,
        "traffic": {"interval_s": 2.0, "links": {}},
        "events": [],
    }


def broken() -> dict[str, Any]:
    """A night: one link down, an entry taken by somebody else, pods that do not answer, a CIDR that is on its way."""
    foreign = "to eni-wz9other: made by somebody else, and not touched"
    adopt = "`nexthop cidr adopt 10.96.0.0/16` that entry, or remove it in the cloud's console, or remove the CIDR here"
    join = (
        "make a token there with `gtund client rotate CLIENT`, or"
        " `gtund client add CLIENT` where `gtund client ls` does not list it, and give it to `nexthop link rotate sg`"
    )
    probe = "the tunnel works; see whether the probe target lives, and what lies between it and the link's far end"
    findings = [
        _finding("link-denied", "link sg is down (denied): the server does not know this key", join, "sg"),
        _finding("foreign-entry", f"{SERVICES} (cloud): {foreign}", adopt, SERVICES),
        _finding("no-path", f"{PODS} (path): tcp:10.244.1.20:80 does not answer", probe, PODS),
    ]
    summary = f"{findings[0]['text']} (and 2 more); 1 of 3 CIDRs ready, 1 of 2 links up"
    cidrs = [
        cidr(SERVICES, comment="services", cloud=layer("error", foreign, "foreign-entry")),
        cidr(
            PODS,
            comment="pods in Hong Kong",
            probe="tcp:10.244.1.20:80",
            path=layer("error", "tcp:10.244.1.20:80 does not answer", "no-path"),
        ),
        cidr("10.245.0.0/16", via="sg", comment="pods in Singapore", cloud=layer("pending", "waits for the kernel"))
        | {
            "layers": {
                "kernel": layer("pending", "waits for link sg"),
                "cloud": layer("pending", "waits for the kernel"),
            }
        },
        cidr("10.250.0.0/16", comment="old cluster", phase="leaving"),
    ]
    sg = link(
        "sg",
        server="198.51.100.77:9443",
        state="down",
        code="denied",
        reason="the server does not know this key",
        address="",
        peer="",
        rtt_ms=None,
        since=time.time() - 340,
    )
    seen = routes()
    seen["tables"][0]["entries"][1] = entry(SERVICES, "conflict", "eni-wz9other", "made by somebody else")
    verdict = {"level": "degraded", "text": summary, "next_step": findings[0]["next_step"]}
    whole = status(verdict=verdict, findings=findings, links=[link(), sg], cidrs=cidrs)
    return {"status": whole, "routes": seen, "traffic": traffic(), "events": events()}


def _finding(code: str, text: str, step: str, about: str) -> dict[str, str]:
    return {"level": "degraded", "code": code, "text": text, "next_step": step, "about": about}


def plan(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Answer a dry run: what would be done, or the guard's reasons."""
    name = body["cidr"]
    if name.startswith("172.18."):
        reason = {
            "code": "overlaps-vswitch",
            "text": f"{name} contains the vSwitch vsw-hosts (172.18.1.0/24)",
            "next_step": "choose a CIDR that does not overlap it: hosts of the VPC live there",
        }
        title = f"{name} cannot be carried"
        return 422, {"code": "cidr-refused", "title": title, "detail": reason["text"], "reasons": [reason]}
    if body.get("method") == "DELETE":
        steps = [_step("delete", name, table, "our entry is removed") for table in (TABLE, MORE)]
    else:
        steps = [_step("create", name, table, "an entry to this instance is made") for table in (TABLE, MORE)]
    return 200, {**cidr(name), "plan": steps, "warnings": []}


def _step(action: str, name: str, table: str, text: str) -> dict[str, str]:
    return {"action": action, "cidr": name, "table": table, "now": "no entry", "text": text}
