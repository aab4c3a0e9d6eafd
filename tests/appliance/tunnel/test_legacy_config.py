import logging
from ipaddress import IPv4Address, IPv4Interface

import pytest

from appliance.tunnel.config import ConfigError
from appliance.tunnel.legacy.config import read_client, read_server

CLIENT = """[client]
server = "192.168.31.65:9399"
auth="gtun-cs-token"

[log]
level="debug"
path="log.log"
days=3
"""
SERVER = """name="us-node-1-1"

[server]
listen=":9623"
auth_key="gtun-cs-token"
nameservers=["8.8.8.8", "8.8.4.4"]
route_url=""

[dhcp]
cidr="100.64.240.1/24"
gateway="100.64.240.1"
nameserver="8.8.8.8"

[log]
level="debug"
path="log.log"
days=3
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="old.toml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_a_clients_file_is_read_and_does_not_show_its_key(write, caplog):
    link = read_client(write(CLIENT))
    assert (link.name, link.device, link.server, link.auth) == ("old", "tun-old", "192.168.31.65:9399", "gtun-cs-token")
    assert "gtun-cs-token" not in repr(link)
    assert not caplog.records


def test_a_servers_file_is_read_and_does_not_show_its_key(write, caplog):
    settings = read_server(write(SERVER))
    assert (settings.host, settings.port, settings.key) == ("", 9623, "gtun-cs-token")
    assert (settings.cidr, settings.gateway) == (IPv4Interface("100.64.240.1/24"), IPv4Address("100.64.240.1"))
    assert settings.nameservers == ("8.8.8.8", "8.8.4.4")
    assert "gtun-cs-token" not in repr(settings)
    assert not caplog.records


def test_a_server_without_more_than_a_key_has_a_port_and_pool_of_its_own(write):
    settings = read_server(write('[server]\nauth_key = "k"\n'))
    assert settings.port == 9623
    assert not settings.cidr.network.overlaps(IPv4Interface("100.64.240.0/24").network)
    assert settings.gateway == IPv4Address("100.64.241.1")


def test_a_key_that_the_originals_do_not_have_is_named_and_passed_over(write, caplog):
    with caplog.at_level(logging.WARNING):
        read_server(write(SERVER + "[extra]\nx = 1\n").rename(write("", "new.toml")))
        read_client(write(CLIENT.replace("[log]", "colour = 1\n[log]")))
    assert [("[extra]" in text, "colour" in text) for text in caplog.messages] == [(True, False), (False, True)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (SERVER.replace('auth_key="gtun-cs-token"', ""), r"\[server\] auth_key is missing or empty.*anybody"),
        (SERVER.replace('auth_key="gtun-cs-token"', 'auth_key=""'), r"\[server\] auth_key is missing or empty"),
        (SERVER.replace('auth_key="gtun-cs-token"', "auth_key=5"), "auth_key must be a text"),
        (SERVER.replace('":9623"', '"9623"'), "write host:port"),
        (SERVER.replace('"100.64.240.1/24"', '"100.64.240.1/33"'), r"\[dhcp\].*netmask"),
        (SERVER.replace('"100.64.240.1/24"', '"100.64.240.1/8"'), "a length of 16 to 30"),
        (SERVER.replace('"100.64.240.1/24"', '"100.64.240.1/32"'), "a length of 16 to 30"),
        (SERVER.replace('gateway="100.64.240.1"', 'gateway="10.0.0.1"'), "is no host of"),
        (SERVER.replace('["8.8.8.8", "8.8.4.4"]', '"8.8.8.8"'), "nameservers must be a list of texts"),
        ("server = 5\n", r"server must be a table: write \[server\]"),
        ("[server", "is not TOML"),
    ],
)
def test_a_bad_servers_file_is_refused_with_the_mend_and_without_its_key(write, text, says):
    with pytest.raises(ConfigError, match=says) as caught:
        read_server(write(text))
    assert "gtun-cs-token" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (CLIENT.replace('auth="gtun-cs-token"', ""), r"\[client\] auth is missing or empty"),
        (CLIENT.replace("gtun-cs-token", ""), r"\[client\] auth is missing or empty"),
        (CLIENT.replace("192.168.31.65:9399", "192.168.31.65"), "write host:port"),
        ("", r"\[client\] server is missing"),
    ],
)
def test_a_bad_clients_file_is_refused_with_the_mend(write, text, says):
    with pytest.raises(ConfigError, match=says):
        read_client(write(text))


def test_a_clients_file_is_named_as_the_link(write):
    with pytest.raises(ConfigError, match="name the file as the link"):
        read_client(write(CLIENT, "Hong Kong.toml"))
