"""Bring up what a contender needs at both ends of its path, with the real programs, and wait until it carries.

Every tunnel does the job of the appliance: the host's packets leave the near end under the tunnel's address and the far
end under its own, and TCP's segment size is clamped where the tunnel is narrower than the line. Our far end has its own
rules for that; the peers get the same from nftables. The path without a tunnel has no rules and no connection tracking.

Keys and certificates are made for the run and lie in its directory, which goes with it.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path as File
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.x509.oid import NameOID

from appliance.tunnel import token
from tests.bench.contenders import Contender, Kind
from tests.lab import ground
from tests.lab.space import PYTHON, Failed

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping

    from tests.bench.contenders import Option
    from tests.bench.topology import Net, Path
    from tests.lab.space import Space

_GTUND: Final = (*PYTHON, "appliance.tunnel.gtund")
_OUR_PORT: Final = 9443
_PEER_PORT: Final = 51820
_NEAR: Final = "100.64.241.2"
_FAR: Final = "100.64.241.1"
_LIMIT: Final = 20.0

_RULES: Final = """
table ip bench {{
    chain forward {{
        type filter hook forward priority filter
        iifname "{tunnel}" tcp flags syn / syn,rst tcp option maxseg size set rt mtu
        oifname "{tunnel}" tcp flags syn / syn,rst tcp option maxseg size set rt mtu
    }}
    chain leaving {{
        type nat hook postrouting priority srcnat
        oifname "{out}" masquerade
    }}
}}
"""


class Tunnel:
    """One contender's programs at both ends."""

    def __init__(self, net: Net, path: Path, contender: Contender) -> None:
        self.net, self.path, self.contender = net, path, contender
        self.near, self.far = net[path.near], net[path.far]
        self.place = ground.RUN / net.lab / contender.key
        self.place.mkdir(mode=0o711, exist_ok=True)
        self._far_file = self.place / "gtund.toml"
        self._processes: dict[str, subprocess.Popen[str]] = {}

    def up(self) -> None:
        """Start it and return when a ping from the host to the pod comes back; raise `Failed` with the logs."""
        match self.contender.kind:
            case Kind.OURS:
                self._ours()
            case Kind.WIREGUARD:
                self._wireguard()
            case Kind.OPENVPN:
                self._openvpn()
            case Kind.NONE:
                pass
        self.wait_for_ping()

    def wait_for_ping(self) -> None:
        """Return when a ping from the host to the pod comes back; raise `Failed`."""
        ping = ("ping", "-n", "-q", "-c", "1", "-W", "1", self.path.pod)
        self.wait("a ping through it", partial(_succeeds, self.net["host"], *ping))

    def wait(self, what: str, condition: Callable[[], object]) -> None:
        """Return when `condition()` is true; raise `Failed` when that takes too long or a program ends."""
        deadline = time.monotonic() + _LIMIT
        while not condition():
            dead = [label for label, process in self._processes.items() if process.poll() is not None]
            if dead or time.monotonic() > deadline:
                raise Failed(f"{self.contender.title}: waited in vain for {what}; ended: {dead}\n{self._logs()}")
            time.sleep(0.02)

    # ---- ours ------------------------------------------------------------------------------------------------------

    def start_gtund(self) -> None:
        """Start our far end and return when it answers."""
        self._far_file.write_text(gtund_toml(self.place, self.path, self.contender))
        self.start(self.far, "gtund", *_GTUND, "run", "--config", str(self._far_file))
        self.wait("gtund", (self.place / "run" / "gtund.sock").exists)

    def add_client(self, name: str) -> str:
        """Register a client at our far end and return its join token."""
        return self.far.run(*_GTUND, "client", "add", name, "--config", str(self._far_file)).stdout

    def _ours(self) -> None:
        self.start_gtund()
        near, control = self.place / "link.toml", self.place / "gtun.sock"
        write_private(near, link_toml(self.add_client("bench"), "bench", self.contender.link))
        gtun = (*PYTHON, "appliance.tunnel.gtun", "--config", str(near), "--control", str(control))
        self.start(self.near, "gtun", *gtun)
        self.wait("the link", partial(link_up, control))
        self._attract("tun-bench")

    # ---- peers -----------------------------------------------------------------------------------------------------

    def _wireguard(self) -> None:
        ends = ((self.near, "near", _NEAR, _FAR), (self.far, "far", _FAR, _NEAR))
        keys = {name: os.urandom(32) for _, name, _, _ in ends}
        for space, name, address, peer in ends:
            # The control sockets have one fixed place on the machine: each end gets a /run of its own.
            command = "mount -t tmpfs none /run && exec wireguard-go --foreground wg0"
            label = f"wireguard-{name}"
            process = self.start(space, label, "unshare", "--mount", "sh", "-c", command)
            mount = f"--mount=/proc/{process.pid}/ns/mnt"
            inside = ("nsenter", mount, "wg")
            self.wait(label, partial(_succeeds, space, *inside, "show", "wg0"))
            other = "far" if name == "near" else "near"
            endpoint = self.path.far_address if name == "near" else ""
            settings = wireguard_conf(keys[name], keys[other], endpoint, "0.0.0.0/0" if endpoint else f"{peer}/32")
            space.run(*inside, "setconf", "wg0", "/dev/stdin", stdin=settings)
            space.run("ip", "address", "add", f"{address}/24", "dev", "wg0")
            space.run("ip", "link", "set", "wg0", "up")
        self._attract("wg0")
        self._masquerade(self.far, tunnel="wg0", out="pods")

    def _openvpn(self) -> None:
        prints = {name: certificate(self.place, name) for name in ("near", "far")}
        for space, name, other in ((self.far, "far", "near"), (self.near, "near", "far")):
            conf = self.place / f"{name}.conf"
            conf.write_text(openvpn_conf(self.place, self.path, name, prints[other]))
            self.start(space, f"openvpn-{name}", "openvpn", "--config", str(conf))
        # The device is there long before TLS is through.
        for name in ("near", "far"):
            log = self.near.logs / f"{self.contender.key}-openvpn-{name}.log"
            self.wait("OpenVPN's handshake", partial(_tells, log, "Initialization Sequence Completed"))
        self._attract("ovpn0")
        self._masquerade(self.far, tunnel="ovpn0", out="pods")

    # ---- both ------------------------------------------------------------------------------------------------------

    def _attract(self, device: str) -> None:
        """Send what is for the pods into the tunnel, as the appliance does for a CIDR."""
        self.near.run("ip", "route", "add", self.path.pods, "dev", device)
        self._masquerade(self.near, tunnel=device, out=device)

    def _masquerade(self, space: Space, *, tunnel: str, out: str) -> None:
        space.run("nft", "-f", "-", stdin=_RULES.format(tunnel=tunnel, out=out))

    def start(self, space: Space, label: str, *argv: str) -> subprocess.Popen[str]:
        """Start a program that has to stay as long as the network."""
        process = self.net.start(space, f"{self.contender.key}-{label}", *argv)
        self._processes[label] = process
        return process

    def _logs(self) -> str:
        paths = sorted(self.near.logs.glob(f"{self.contender.key}-*.log"))
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-1500:]}" for path in paths)


def _succeeds(space: Space, *argv: str) -> bool:
    return space.run(*argv, check=False).returncode == 0


def _tells(log: File, text: str) -> bool:
    return text in log.read_text()


def gtund_toml(place: File, path: Path, contender: Contender) -> str:
    """Return gtund's configuration for one path, with the contender's options over it."""
    where = f"{path.far_address}:{_OUR_PORT}"
    server: dict[str, object] = {
        "listen": f"0.0.0.0:{_OUR_PORT}",
        "public": where,
        "state": f"{place}/state",
        "run": f"{place}/run",
    }
    tunnel: dict[str, object] = {"serve": [path.pods]}
    return _toml("server", {**server, **contender.server}) + _toml("tunnel", {**tunnel, **contender.tunnel})


def link_toml(join: str, name: str, options: Mapping[str, Option]) -> str:
    """Return a link's configuration from a join token, with the contender's options over it; it holds a fresh key."""
    told = token.decode(join)
    link = {
        "name": name,
        "device": f"tun-{name}",
        "server": told.server,
        "pin": told.pin,
        "client": told.client,
        "key": base64.b64encode(os.urandom(32)).decode(),
        "join": told.secret,
    }
    return _toml("link", {**link, **options})


def _toml(section: str, values: Mapping[str, object]) -> str:
    # A JSON string, number, truth value or list of strings is TOML as well.
    return f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()) + "\n"


def write_private(path: File, text: str) -> None:
    """Write a file that only its owner may read."""
    path.touch(mode=0o600)
    path.write_text(text)


def link_up(control: File) -> bool:
    """Return whether a gtun says that its link is up."""
    with suppress(OSError, ValueError), socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(2)
        sock.connect(str(control))
        with sock.makefile("rb") as answer:
            return bool(json.loads(answer.read())["state"] == "up")
    return False


def wireguard_conf(mine: bytes, theirs: bytes, endpoint: str, allowed: str) -> str:
    """Return a configuration for ``wg setconf``; the far end waits for the near one and has no `endpoint`."""
    public = x25519.X25519PrivateKey.from_private_bytes(theirs).public_key().public_bytes_raw()
    lines = [
        "[Interface]",
        f"PrivateKey = {base64.b64encode(mine).decode()}",
        f"ListenPort = {_PEER_PORT}",
        "[Peer]",
        f"PublicKey = {base64.b64encode(public).decode()}",
        f"AllowedIPs = {allowed}",
        *([f"Endpoint = {endpoint}:{_PEER_PORT}"] if endpoint else []),
    ]
    return "\n".join(lines) + "\n"


def certificate(place: File, name: str) -> str:
    """Write NAME.crt and NAME.key, self-signed for a day; return the fingerprint as OpenVPN wants it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"bench {name}")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    (place / f"{name}.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_private(place / f"{name}.key", private.decode())
    return made.fingerprint(hashes.SHA256()).hex(":").upper()


def openvpn_conf(place: File, path: Path, name: str, fingerprint: str) -> str:
    """Return one end's configuration: point to point over UDP, with pinned certificates and AES-256-GCM.

    Its kernel module is not used; all else is OpenVPN's default.
    """
    near = name == "near"
    mine, theirs = (_NEAR, _FAR) if near else (_FAR, _NEAR)
    remote = path.far_address if near else path.near_address
    lines = [
        "dev ovpn0",
        "dev-type tun",
        "proto udp",
        f"remote {remote} {_PEER_PORT}",
        f"lport {_PEER_PORT}",
        "tls-client" if near else "tls-server\ndh none",
        f"cert {place}/{name}.crt",
        f"key {place}/{name}.key",
        f"peer-fingerprint {fingerprint}",
        "data-ciphers AES-256-GCM",
        "cipher AES-256-GCM",
        "disable-dco",
        f"ifconfig {mine} {theirs}",
    ]
    return "\n".join(lines) + "\n"
