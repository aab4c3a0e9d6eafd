"""verify.sh, with what it asks the machine played: which ports it expects, and how many connections."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

VERIFY = Path(__file__).parents[2] / "images" / "verify.sh"
API = '[api]\nlisten = "0.0.0.0:8443"\n'
FAR_END = '["server"]\n"listen" = "[::]:7000"\n"public" = "203.0.113.10:9000"\n'  # as a first boot writes it


def said(place: Path, role: str, toml: str, *, ports: str = "", conntrack: str = "262144") -> list[str]:
    """Return what it says on a machine that listens on `ports`."""
    etc = place / "etc"
    etc.mkdir()
    (etc / "role").write_text(f"{role}\n")
    (etc / ("gtund.toml" if role == "gtund" else "nexthop.toml")).write_text(toml)
    for name in ("systemctl", "systemd-analyze", "passwd"):
        played(place, name, ":")
    opened = "\n".join(f"{kind} LISTEN 0 0 0.0.0.0:{port} *:*" for kind, port in (p.split(":") for p in ports.split()))
    played(place, "ss", f"cat <<'END'\n{opened}\nEND")
    played(place, "sysctl", f'case $2 in net.netfilter.nf_conntrack_max) echo "{conntrack}" ;; esac')
    script = VERIFY.read_text().replace("/etc/nexthop", str(etc))
    environment = {"PATH": f"{place}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout.splitlines()


def played(place: Path, name: str, body: str) -> None:
    file = place / name
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)


@pytest.mark.parametrize(
    ("role", "toml", "ports", "refused"),
    [
        ("gtund", "", "tcp:22 tcp:9443 udp:9443", ""),
        ("gtund", FAR_END, "tcp:22 tcp:7000 udp:7000", ""),
        ("gtund", FAR_END, "tcp:9443 udp:9443 tcp:9000 udp:7001", "tcp:9000 tcp:9443 udp:7001 udp:9443"),
        ("appliance", "", "tcp:22 tcp:8443 tcp:9443 udp:9443", "tcp:8443 tcp:9443 udp:9443"),
        ("appliance", API, "tcp:22 tcp:8443 udp:8443", "udp:8443"),
        ("appliance", f"# {API}", "tcp:22", ""),
    ],
)
def test_the_ports_are_those_that_the_configuration_asks_for(
    tmp_path: Path, role: str, toml: str, ports: str, refused: str
) -> None:
    lines = [line for line in said(tmp_path, role, toml, ports=ports) if " is open" in line]
    assert len(lines) == len(ports.split())
    assert [line.split()[1] for line in lines if line.startswith("FAIL")] == refused.split()


@pytest.mark.parametrize(("found", "word"), [("262144", "ok"), ("1048576", "ok"), ("65536", "FAIL"), ("", "FAIL")])
def test_there_is_room_for_the_images_connections_or_more(tmp_path: Path, found: str, word: str) -> None:
    (line,) = [line for line in said(tmp_path, "gtund", "", conntrack=found) if "nf_conntrack_max" in line]
    assert line.split()[0] == word
