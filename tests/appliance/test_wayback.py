from __future__ import annotations

from appliance import wayback
from appliance.guard import refused
from appliance.model import Intent
from tests.appliance.fakes import POD, VPC


def test_a_masqueraded_cidr_needs_no_way_back() -> None:
    assert wayback.judge(Intent(POD, "hk"), VPC) == ()


def test_without_snat_it_is_said_which_sources_the_far_end_has_to_know() -> None:
    (reason,) = wayback.judge(Intent(POD, "hk", snat=False), VPC)
    assert reason.code == "return-route"
    assert "172.18.0.0/16" in reason.text
    assert not refused((reason,))
    (unsure,) = wayback.judge(Intent(POD, "hk", snat=False), None)
    assert "the VPC's CIDRs" in unsure.text
