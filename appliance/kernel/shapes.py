"""One rule of each shape that we use, as bytes, built by python-iptables. ``python -m appliance.kernel.shapes 4``.

Asked for a rule's parameters the library redirects file descriptor 1 of the whole process, and some mistakes end it.
So a child builds each shape once, and those bytes are what rules are stamped from and compared with (xt.py).
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Final

from appliance.kernel import xt
from appliance.kernel.firewall import FirewallError
from appliance.kernel.rules import Action, Chain, Line, State
from appliance.kernel.xtables import name_of

_HERE: Final = Path(__file__).parents[2]  # where a child finds this package, wherever we were started
_BUILD_TIMEOUT: Final = 20.0  # seconds
_STATES: Final = {State.INVALID: "INVALID", State.ESTABLISHED: "RELATED,ESTABLISHED"}
_KINDS: Final = (
    (Action.DROP, State.INVALID),
    (Action.ACCEPT, State.ESTABLISHED),
    (Action.RETURN, State.ESTABLISHED),
    *((action, State.ANY) for action in Action),
)
_TCPMSS: Final = frozenset({Action.CLAMP, Action.SET_MSS})
_SOME_MSS: Final = 1300  # of the shape; a rule's own is stamped over it
_UNREACHABLE: Final = {4: "icmp-host-unreachable", 6: "icmp6-addr-unreachable"}


def shape(version: int, action: Action, state: State) -> bytes:
    """Return the rule of this shape; `FirewallError` where the library cannot build it here."""
    found = _shapes(version)[action, state]
    if isinstance(found, str):
        raise FirewallError(f"iptables cannot build a rule to {action.value}, IPv{version}: {found}")
    return found


@lru_cache
def jump(version: int, chain: Chain) -> bytes:
    """Return the rule that jumps to our chain."""
    template = shape(version, Action.RETURN, State.ANY)
    return xt.name_target(xt.stamp(template, Line(chain, Action.RETURN), version, {}), version, name_of(chain).encode())


def target(action: Action) -> bytes:
    """Return the name of the target that does this."""
    return b"TCPMSS" if action in _TCPMSS else action.name.encode()


@lru_cache
def _shapes(version: int) -> dict[tuple[Action, State], bytes | str]:
    """Return a rule of each shape, or the text of why there is none.

    One child per IP version: an extension that is registered for one version ends the process when it is asked for the
    other ("already registered"), and neither that nor a crash may take the daemon along.
    """
    command = [sys.executable, "-m", "appliance.kernel.shapes", str(version)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_TIMEOUT, check=False, cwd=_HERE)
    except subprocess.TimeoutExpired:
        raise FirewallError(f"python-iptables built no rule within {_BUILD_TIMEOUT:g} s, IPv{version}") from None
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode != 0 or len(answers) != len(_KINDS):
        said = (done.stderr.strip().splitlines() or ["without a word"])[-1]
        raise FirewallError(
            f"python-iptables ended its process with status {done.returncode} at rule {len(answers) + 1} of "
            f"{len(_KINDS)}, IPv{version}: {said}"
        )
    return {kind: _built(answer) for kind, answer in zip(_KINDS, answers, strict=True)}


def _built(answer: dict[str, str]) -> bytes | str:
    return bytes.fromhex(answer["rule"]) if "rule" in answer else answer["error"]


def _build(version: int, action: Action, state: State) -> bytes:
    """Let the library build one rule of this shape. Never give it None: a segmentation fault from Python 3.12 on."""
    import iptc  # noqa: PLC0415  (in the child alone)

    rule = iptc.Rule() if version == 4 else iptc.Rule6()
    if state is not State.ANY:
        rule.create_match("conntrack").ctstate = _STATES[state]
    if action in _TCPMSS:
        rule.protocol = "tcp"
        rule.create_match("tcp").tcp_flags = ["SYN,RST", "SYN"]
    rule.create_match("comment").comment = "nexthop"
    built = rule.create_target("TCPMSS" if action in _TCPMSS else action.name)
    if action is Action.CLAMP:
        built.clamp_mss_to_pmtu = ""
    elif action is Action.SET_MSS:
        built.set_mss = str(_SOME_MSS)
    elif action is Action.REJECT:
        built.reject_with = _UNREACHABLE[version]
    rule.final_check()
    return bytes(rule.rule)


def _build_all(version: int) -> None:
    """Be the child: print a line of JSON per shape."""
    for action, state in _KINDS:
        try:
            answer = {"rule": _build(version, action, state).hex()}
        except Exception as failure:
            answer = {"error": f"{type(failure).__name__}: {failure}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _build_all(int(sys.argv[1]))
