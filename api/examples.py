"""One example of everything that the API takes and gives, by the name of its schema. A test holds them to the schemas.

Only documentation: nothing is answered from here.
"""

from __future__ import annotations

from typing import Any, Final

_REASON: Final = {
    "code": "foreign-entry",
    "text": "vtb-1 already sends it to i-9, by an entry that is not ours",
    "next_step": "`nexthop cidr adopt` that entry, or remove it in the cloud's console, or remove the CIDR here",
}
_OK: Final = {"state": "ok", "detail": "routed to tun-hk", "code": ""}
_LAYERS: Final = {"kernel": _OK, "cloud": {"state": "ok", "detail": "vtb-1 -> i-1", "code": ""}}
_CHANGE: Final = {
    "action": "create",
    "cidr": "10.244.0.0/16",
    "table": "vtb-1",
    "now": "no entry",
    "text": "send it here",
}
_OPTIONS: Final = {
    "via": "hk",
    "snat": True,
    "comment": "pods in Hong Kong",
    "mss": "auto",
    "probe": "tcp:10.244.1.20:80",
    "when_down": "keep",
    "hold_down": 30.0,
}
_CIDR: Final = {
    "cidr": "10.244.0.0/16",
    **_OPTIONS,
    "phase": "present",
    "created_at": 1767225600.0,
    "etag": "0123456789abcdef",
    "layers": _LAYERS,
    "path": {"state": "ok", "detail": "tcp:10.244.1.20:80 answers within 115.2 ms", "code": ""},
    "warnings": [],
    "plan": [],
}
_LINK: Final = {
    "name": "hk",
    "device": "tun-hk",
    "server": "203.0.113.10:9443",
    "state": "up",
    "code": "",
    "reason": "",
    "address": "100.64.240.50",
    "peer": "100.64.240.1",
    "since": 1767225600.0,
    "retry_at": None,
    "rtt_ms": 115.2,
    "channel": "hybrid",
    "loss": 0.01,
    "unit_bytes": 65536,
    "counters": {"tx_bytes": 1048576, "rx_bytes": 2097152, "tx_packets": 900, "rx_packets": 1700},
}
_EVENT: Final = {
    "id": 42,
    "at": 1767225600.0,
    "who": "token ci",
    "what": "added",
    "cidr": "10.244.0.0/16",
    "detail": "via hk, masqueraded",
}
_TOKEN: Final = {
    "name": "grafana",
    "scope": "read",
    "created": 1767225600.0,
    "expires": 1775001600.0,
    "last_used": None,
}
_FILL: Final = {"ours": 2, "others": 1, "limit": 200, "reserve": 5, "free": 192}
_FINDING: Final = {
    "level": "degraded",
    "code": "foreign-entry",
    "text": "10.96.0.0/16 (cloud): vtb-1 already sends it to i-9, by an entry that is not ours",
    "next_step": _REASON["next_step"],
    "about": "10.96.0.0/16",
}
_VERDICT: Final = {"level": "ok", "text": "2 of 2 CIDRs ready, 1 of 1 links up", "next_step": ""}
_ENTRY: Final = {
    "cidr": "10.244.0.0/16",
    "next_hop": "i-1",
    "next_hop_type": "Instance",
    "owner": "ours",
    "status": "Available",
    "note": "",
}
_TABLE: Final = {"id": "vtb-1", "kind": "system", "name": "", "vswitches": ["vsw-hosts"], "entries": [_ENTRY]}
_LINE: Final = {"at": [1767225600.0], "tx_bps": [1e6], "rx_bps": [2e7], "rtt_ms": [115.2], "loss": [0.0]}
_STEP: Final = {
    "layer": "intent",
    "ok": True,
    "text": "10.244.1.20 falls under 10.244.0.0/16, via link hk",
    "next_step": "",
}
_FIREWALL: Final = {"name": "iptables", "fallback_reason": ""}
_CLOUD: Final = {
    "provider": "aliyun",
    "vpc_id": "vpc-1",
    "instance_id": "i-1",
    "tables": ["vtb-1"],
    "error": None,
    "strays": [],
}
_API: Final = {"listen": "0.0.0.0:8443", "fingerprint": ":".join(["A1"] * 32)}
_AGGREGATE: Final = {"cidr": "10.244.0.0/16", "parts": ["10.244.0.0/17", "10.244.128.0/17"]}
_CHECK: Final = {"code": "permissions", "state": "ok", "text": "the role may write route entries", "fix": ""}

EXAMPLES: Final[dict[str, Any]] = {
    "AggregateResource": _AGGREGATE,
    "ApiResource": _API,
    "Change": {"comment": "pods in Hong Kong", "probe": "tcp:10.244.1.20:80"},
    "ChangeResource": _CHANGE,
    "CheckResource": _CHECK,
    "CidrLayers": _LAYERS,
    "CidrList": {"cidrs": [_CIDR], "next": None},
    "CidrResource": _CIDR,
    "CloudResource": _CLOUD,
    "DoctorResource": {"verdict": "ok", "findings": [_CHECK]},
    "EntryResource": _ENTRY,
    "EventList": {"events": [_EVENT], "next": 42},
    "EventResource": _EVENT,
    "ExplainResource": {
        "ip": "10.244.1.20",
        "answer": "A host of the VPC reaches 10.244.1.20 through this machine and link hk.",
        "steps": [_STEP],
        "cidr": "10.244.0.0/16",
        "next_hop": "i-1",
    },
    "FillResource": _FILL,
    "FindingResource": _FINDING,
    "FirewallResource": _FIREWALL,
    "FreshToken": {**_TOKEN, "token": "nht_..."},
    "Health": {"status": "ok"},
    "History": {"events": [_EVENT]},
    "LayerResource": _OK,
    "LineResource": _LINE,
    "LinkList": {"links": [_LINK]},
    "LinkResource": _LINK,
    "NewCidr": {"cidr": "10.244.0.0/16", "via": "hk", "comment": "pods in Hong Kong"},
    "NewLink": {"name": "hk", "token": "nexthop1_..."},
    "NewKey": {"token": "nexthop1_..."},
    "NewToken": {"name": "grafana", "scope": "read", "expires_days": 90},
    "PlanResource": {"changes": [_CHANGE], "tables": [{"table": "vtb-1", **_FILL}], "aggregates": [_AGGREGATE]},
    "ProblemDocument": {
        "type": "urn:nexthop:problem:cidr-refused",
        "title": "10.244.0.0/16 cannot be carried",
        "status": 422,
        "detail": _REASON["text"],
        "code": "cidr-refused",
        "reasons": [_REASON],
    },
    "Readiness": {"status": "ok", "cloud": ""},
    "Reason": _REASON,
    "Restored": {
        "cidrs": 2,
        "tokens": 1,
        "saved_at": 1767225600.0,
        "damaged": "/var/lib/nexthop/nexthop.db.damaged-1767225600",
    },
    "RouteTableResource": _TABLE,
    "RoutesResource": {"observed_at": 1767225600.0, "tables": [_TABLE], "quota": {"vtb-1": _FILL}},
    "Scope": "read",
    "SessionResource": {"scope": "read", "via": "token", "name": "token grafana"},
    "StatusResource": {
        "version": "0.1.0",
        "verdict": _VERDICT,
        "findings": [],
        "links": [_LINK],
        "cidrs": [_CIDR],
        "firewall": _FIREWALL,
        "cloud": _CLOUD,
        "api": _API,
        "drift_repairs": {"route": 1},
    },
    "StepResource": _STEP,
    "StrayResource": {"cidr": "10.97.0.0/16"},
    "TableResource": {"table": "vtb-1", **_FILL},
    "TokenList": {"tokens": [_TOKEN]},
    "TokenResource": _TOKEN,
    "TrafficResource": {"interval_s": 2.0, "links": {"hk": _LINE}},
    "VerdictResource": _VERDICT,
    "WholeCidr": _OPTIONS,
}
