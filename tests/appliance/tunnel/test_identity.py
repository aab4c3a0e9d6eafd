import ssl
import stat

import pytest

from appliance.tunnel import identity


def test_the_key_is_made_once_and_only_its_owner_can_read_it(tmp_path):
    path = identity.ensure(tmp_path / "state")
    before = path.read_bytes()
    assert identity.ensure(tmp_path / "state").read_bytes() == before
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def certificate_of(path):
    pem = path.read_text()
    return ssl.PEM_cert_to_DER_cert(pem[pem.index("-----BEGIN CERTIFICATE") :])


def test_the_pinned_key_is_accepted_and_no_other(tmp_path):
    ours, theirs = identity.ensure(tmp_path / "ours"), identity.ensure(tmp_path / "theirs")
    pin = identity.pin_of_file(ours)
    identity.check_pin(certificate_of(ours), pin)
    for wrong in (certificate_of(theirs), None):
        with pytest.raises(identity.PinMismatch):
            identity.check_pin(wrong, pin)


def test_only_tls_1_3_is_spoken(tmp_path):
    for context in (identity.client_context(), identity.server_context(identity.ensure(tmp_path))):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3
