from __future__ import annotations

import base64
import tomllib
from typing import TYPE_CHECKING

from appliance.tunnel import config, token
from tests.bench import contenders, plan
from tests.bench.contenders import Contender, Kind
from tests.bench.machine import version_in
from tests.bench.topology import Path
from tests.bench.tunnels import gtund_toml, link_toml, openvpn_conf, wireguard_conf, write_private

if TYPE_CHECKING:
    from pathlib import Path as File

PATH = Path("stream", 2)
JOIN = token.encode(token.JoinToken("198.19.2.10", 9443, "cGlu", "bench", "c2VjcmV0"))


def test_our_files_are_what_our_programs_read(tmp_path: File) -> None:
    for mode in contenders.OURS:
        far, near = tmp_path / "gtund.toml", tmp_path / "link.toml"
        far.write_text(gtund_toml(tmp_path, PATH, mode))
        write_private(near, link_toml(JOIN, "bench", mode.link))
        assert str(config.read_gtund(far).tunnel.serve[0]) == PATH.pods
        assert config.read_link(near).server == "198.19.2.10:9443"
        assert near.stat().st_mode & 0o777 == 0o600


def test_a_modes_options_are_laid_over_the_files(tmp_path: File) -> None:
    mode = Contender("x", "x", Kind.OURS, link={"mode": "datagram", "connections": 4}, tunnel={"mtu": 1400})
    link = tomllib.loads(link_toml(JOIN, "bench", mode.link))["link"]
    assert (link["mode"], link["connections"]) == ("datagram", 4)
    assert tomllib.loads(gtund_toml(tmp_path, PATH, mode))["tunnel"]["mtu"] == 1400


def test_each_wireguard_end_knows_the_others_public_key() -> None:
    near, far = bytes(range(32)), bytes(range(1, 33))
    text = wireguard_conf(near, far, "198.19.2.10", "0.0.0.0/0")
    assert base64.b64encode(near).decode() in text
    assert base64.b64encode(far).decode() not in text
    assert "Endpoint = 198.19.2.10:51820" in text
    assert "Endpoint" not in wireguard_conf(far, near, "", "100.64.241.2/32")


def test_one_openvpn_end_is_the_tls_server(tmp_path: File) -> None:
    near, far = (openvpn_conf(tmp_path, PATH, name, "AA:BB") for name in ("near", "far"))
    assert "tls-client" in near
    assert "tls-server\ndh none" in far
    assert "disable-dco" in near
    assert "data-ciphers AES-256-GCM" in far


def test_baselines_always_take_part() -> None:
    assert {one.key for one in contenders.chosen(["stream"])} == {"none", "none-bbr", "stream"}
    assert contenders.chosen(["fast"]) == contenders.ALL
    assert len({one.key for one in contenders.ALL}) == len(contenders.ALL)


def test_one_loss_of_the_long_line_can_be_asked_for() -> None:
    assert plan.FULL.wan.only({"wan-0.1", "hybrid"}).losses == (0.001,)
    assert plan.FULL.wan.only({"wan", "hybrid"}) == plan.FULL.wan


def test_a_version_is_found_in_what_programs_say() -> None:
    assert version_in("wireguard-go v0.0.20220316\n") == "0.0.20220316"
    assert version_in("OpenVPN 2.6.14 x86_64-pc-linux-gnu") == "2.6.14"
    assert version_in("nothing") == "?"
