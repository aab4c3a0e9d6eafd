from __future__ import annotations

from pathlib import Path

import pytest

from appliance.config import CloudConfig, Config, ConfigError, Paths, load, parse


def test_an_empty_file_is_a_whole_configuration() -> None:
    assert parse("") == Config()
    assert Config().paths.database == Path("/var/lib/nexthop/nexthop.db")
    assert Config().paths.socket == Path("/run/nexthop/nexthopd.sock")


def test_every_key_can_be_set() -> None:
    config = parse(
        """
        [paths]
        state = "/s"
        run = "/r"
        [api]
        group = "wheel"
        [kernel]
        firewall = "nftables"
        conntrack = 524288
        inbound = ["hk", "sg"]
        [cloud]
        provider = "none"
        endpoint = "100.100.0.10:80"
        protocol = "http"
        metadata = "http://100.100.100.200/"
        route_tables = ["vtb-1"]
        route_table_tag = "nexthop=yes"
        appliance_id = "shenzhen"
        epoch = 2
        resync_seconds = 5
        credentials = "/etc/nexthop/keys.toml"
        """
    )
    assert config.paths == Paths(Path("/s"), Path("/r"))
    assert (config.api.group, config.kernel.firewall) == ("wheel", "nftables")
    assert config.kernel.conntrack == 524288
    assert config.kernel.inbound == ("hk", "sg")
    assert config.cloud == CloudConfig(
        provider="none",
        endpoint="100.100.0.10:80",
        protocol="http",
        metadata="http://100.100.100.200",
        route_tables=("vtb-1",),
        route_table_tag="nexthop=yes",
        appliance_id="shenzhen",
        epoch=2,
        resync_seconds=5.0,
        credentials="/etc/nexthop/keys.toml",
    )


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[cloud]\nprovidr = 'none'", ["cloud.providr", "provider"]),
        ("[clouds]\n", ["clouds", "[cloud]"]),
        ("cloud = 1", ["cloud", "[cloud]"]),
        ("[cloud]\nprovider = 'aws'", ["cloud.provider", '"aliyun" or "none"']),
        ("[cloud]\nresync_seconds = '60'", ["cloud.resync_seconds", "without quotes"]),
        ("[cloud]\nresync_seconds = true", ["cloud.resync_seconds"]),
        ("[cloud]\nresync_seconds = 0", ["cloud.resync_seconds", "between"]),
        ("[cloud]\nresync_seconds = nan", ["cloud.resync_seconds"]),
        ("[cloud]\nroute_tables = 'vtb-1'", ["cloud.route_tables", '["vtb-1", "vtb-2"]; [] for all']),
        ("[cloud]\nroute_quota = 20\nroute_reserve = 20", ["cloud.route_reserve = 20", "cloud.route_quota = 20"]),
        ("[cloud]\nroute_quota = 5", ["cloud.route_reserve = 5", "write a smaller reserve"]),
        ("[cloud]\nroute_table_tag = '=yes'", ["cloud.route_table_tag", "KEY=VALUE"]),
        ("[cloud]\nepoch = 0", ["cloud.epoch", "between 1 and"]),
        ("[cloud]\nappliance_id = 'a b'", ["cloud.appliance_id", "letters"]),
        ("[cloud]\nmetadata = '100.100.100.200'", ["cloud.metadata", "http://"]),
        ("[cloud]\ncredentials = 'mine'", ["cloud.credentials", "role"]),
        ("[kernel]\ninbound = 'hk'", ["kernel.inbound", '["hk"]']),
        ("[kernel]\ninbound = ['tun-hk; drop']", ["kernel.inbound"]),
        ("[kernel]\nfirewall = 'ufw'", ["kernel.firewall", '"nftables"']),
        ("[paths]\nstate = 'lib'", ["paths.state", "absolute"]),
        ("[api]\ngroup = ''", ["api.group"]),
        ("[api]\nhosts = 'a'", ["api.hosts", 'a list of names, such as ["nexthop.example.com"]; [] for none']),
        ("[api\n", ["TOML"]),
        (f"[cloud]\nepoch = {'1' * 5000}", ["TOML"]),
        (f"[api]\nhosts = {'[' * 5000}", ["TOML"]),
    ],
)
def test_a_mistake_is_named_with_file_key_and_mend(text: str, names: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "/etc/x.toml")
    assert str(caught.value).startswith("/etc/x.toml: ")
    assert all(name in str(caught.value) for name in names)


def test_a_file_that_cannot_be_read_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml.*--config"):
        load(tmp_path / "none.toml")
    (tmp_path / "latin").write_bytes(b"\xff")
    with pytest.raises(ConfigError):
        load(tmp_path / "latin")
    (tmp_path / "ok.toml").write_text("[api]\ngroup='a'\n")
    assert load(tmp_path / "ok.toml").api.group == "a"
