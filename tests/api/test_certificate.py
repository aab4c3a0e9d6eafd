from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography import x509

from api.certificate import BadCertificate, identity, own
from api.tls import Unusable, about, listen
from appliance.config import Config, ConfigError, parse


def configured(tmp_path: Path, **api: str) -> Config:
    lines = "\n".join(f"{key} = {value}" for key, value in api.items())
    return parse(f'[paths]\nstate = "{tmp_path}"\n[api]\n{lines}\n')


def test_our_own_is_made_once_for_root_alone_and_names_the_machine(tmp_path: Path) -> None:
    path = own(tmp_path / "api", ["nexthop.example", "localhost", "127.0.0.1", "::1", "localhost"])
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    before = path.read_bytes()
    assert own(tmp_path / "api", ["other.example"]).read_bytes() == before
    certificate = x509.load_pem_x509_certificate(before)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["nexthop.example", "localhost"]
    known = identity(path, path)
    assert len(known.fingerprint.split(":")) == 32
    assert known.context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    good = own(tmp_path / "api", ["localhost"])
    (tmp_path / "empty.pem").write_text("")
    (tmp_path / "nonsense.pem").write_bytes(bytes(range(256)))
    for name in ("empty.pem", "nonsense.pem", "missing.pem"):
        with pytest.raises(BadCertificate, match=name):
            identity(tmp_path / name, good)
        with pytest.raises(BadCertificate, match=r"set \[api\] certificate and key"):
            identity(good, tmp_path / name)


def test_without_an_address_nobody_listens(tmp_path: Path) -> None:
    config = configured(tmp_path)
    assert listen(config) == (None, "")
    assert about(config, "", None).listen == ""


def test_an_address_that_is_not_ours_is_told(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match=r"203\.0\.113\.1:8443.*set \[api\] listen"):
        listen(configured(tmp_path, listen='"203.0.113.1:8443"'))


@pytest.mark.parametrize("value", ["8443", '"8443"', '"localhost:8443"', '"0.0.0.0:0"', '"0.0.0.0:99999"', '"0.0.0.0"'])
def test_an_address_that_is_none_is_refused_by_name(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match=r"api\.listen"):
        configured(tmp_path, listen=value)


def test_a_certificate_without_its_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="go together"):
        configured(tmp_path, certificate='"/etc/ssl/nexthop.pem"')


def test_the_operators_own_is_taken(tmp_path: Path) -> None:
    made = own(tmp_path / "mine", ["localhost"])
    config = configured(tmp_path, listen='"127.0.0.1:1"', certificate=f'"{made}"', key=f'"{made}"')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("api.tls.bound", lambda _listen: None)
        tls, fingerprint = listen(config)
    assert tls is not None
    assert fingerprint == identity(made, made).fingerprint
    assert not (tmp_path / "api").exists()
