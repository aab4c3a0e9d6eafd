"""Every error code that the API's pages list, and what it asks of us."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from cloud.errors import classify, newer_credentials_may_help
from cloud.provider import CloudError, Conflict, Denied, Duplicate, QuotaExceeded, Rejected, Throttled, Unavailable
from tests.cloud.direct import PACE, Direct
from tests.cloud.world import POD_CIDR, SERVICE_CIDR, world_file

TABLE: dict[type[CloudError], str] = {
    Throttled: "Throttling Throttling.User Throttling.Api Throttling.DeepPageSkip Rejected.Throttling",
    Conflict: """
        TaskConflict OperationConflict IncorrectRouteEntryStatus IncorrcetRouteEntryStatus IncorrectVpcStatus
        IncorrectVSwitchStatus IncorrectInstanceStatus IncorrectHaVipStatus InvalidVBRStatus LastTokenProcessing
        OperationFailed.LastTokenProcessing OperationFailed.DistibuteLock IncorrectStatus.RouteTableStatus
        IncorrectStatus.PrefixList IncorrectStatus.VpcPeer IncorrectStatus.Ipv4Gateway IncorrectStatus.Ipv6Address
        IncorrectStatus.RouterInterface IncorrectStatus.MultiScopeRiRouteEntry IncorrectStatus.VpcRouteEntry Forbbiden
        InvalidRouteEntry InvalidRouteEntry.NotFound InvalidRouteEntryId.NotFound VPC_ROUTER_ENTRY_NOT_EXIST
        VPC_ROUTE_ENTRY_STATUS_ERROR OperationDenied.NextHopNotChanged""",
    Duplicate: """
        InvalidCIDRBlock.Duplicate InvalidCidrBlock.Duplicate InvalidRouteEntry.Duplicate Duplicated.VpcNextHop
        RouterEntryConflict.Duplicated RouteConflict.AlreadyExist VPC_ROUTE_ENTRY_CIDR_BLOCK_DUPLICATE""",
    QuotaExceeded: "QuotaExceeded QuotaExceeded.HaVipRouteEntry CountLimitExceed.HaVipRouteEntry",
    Denied: """
        Forbidden.RAM NoPermission InvalidAccessKeyId.NotFound InvalidAccessKeyId.Inactive SignatureDoesNotMatch
        InvalidAccessKeySecret IncompleteSignature InvalidTimeStamp.Expired InvalidSecurityToken.Expired
        InvalidSecurityToken.Malformed InvalidSecurityToken.MismatchWithAccessKey MissingSecurityToken
        SDK.InvalidCredential""",
    Rejected: """
        MissingParameter InvalidCidrBlock.Malformed InvalidCidrBlock IllegalParam.CidrBlock InvalidDestinationCidrBlock
        InvalidNextHopType InvalidNextHop.NotFound InvalidNexthop.NotFound IllegalParam.NextHopId
        InvalidNexthopTypeAndList.BothNull InvalidNexthopListSize InvalidNexthop.DirectEni Mismatch.EniIdAndRouteTableId
        InvalidRouteEntryName.Malformed InvalidDescription.Malformed OperationDenied
        OperationDenied.RouteTableTypeNotPermitted OperationDenied.VpcIpv6NotEnabled
        OperationDenied.DeleteManagedRouteEntry
        DryRunOperation InvalidRouteTableId.NotFound InvalidNextHopId.NotFound InvalidInstanId.NotFound
        OperationFailed.InstanceDismatchCurrentVpc ParamExclusive.RouteEntryIdAndRouteTableIdOrDestCidrBlock
        OperationUnsupported.SubRouteTableECMP IdempotentParameterMismatch InvalidAction.NotFound
        InvalidTimeStamp.Format InvalidProtocol.NeedSsl InvalidNexthop.UnsupportedEniBizType
        Mismatch.HaVipIdAndRouteTableId InvalidNexthopTypeAndList.BothNotNull InvalidNextHopList.Size
        OperationDenied.GatewayRouteTableNotPermitted OperationDenied.NextHopTypeNotPermitted
        OperationDenied.ModifyManagedRouteEntry OperationDenied.Ipv6EntryOnCustomTable
        OperationDenied.UseGatewayRouteEntryQueryInterface OperationUnsupported.Ipv6EntryOnPrimaryNetworkInterface
        OperationUnsupported.MutipleIpv6Address InvalidHaVipId.NotFound InvalidNetworkInterface.NotFound
        InvalidVpcId.NotFound InvalidRouteTable.NotFound IllegalParam.NextToken IllegalParam.NextTokenExpired
        IllegalParam.RouteEntryType IllegalParam.IpVersion OperationFailed.QueryCenEntry
        OperationFailed.FilterParamUnderWrongRouteType DependencyViolation.RouteEntry MissingTimestamp MissingRegionId
        MissingParam.RouteTableId InvalidSignatureMethod InvalidParameter.Format UnsupportedHTTPMethod
        InvalidApi.NotFound InvalidVersion InvalidRegionId InvalidIdempotenceParameter.Mismatch
        ResourceNotAssociated.TargetInstance""",
    Unavailable: """
        InternalError Internal.Error VPC.ERROR Vpc.Error ServiceUnavailable SystemBusy UnknownError SignatureNonceUsed
        SDK.HttpError SDK.UnknownServerError""",
}
ROWS = [(code, kind) for kind, codes in TABLE.items() for code in codes.split()]


@pytest.mark.parametrize(("code", "kind"), ROWS)
def test_a_code_asks_for_what_its_page_says_whatever_its_case_and_status(code: str, kind: type[CloudError]) -> None:
    for spelled in (code, code.upper(), code.lower()):
        for status in (0, 400, 403, 404, 500):
            assert classify(spelled, status) is kind


@pytest.mark.parametrize(
    ("status", "kind"), [(0, Unavailable), (400, Unavailable), (403, Denied), (429, Throttled), (503, Unavailable)]
)
def test_a_code_that_nobody_knows_goes_by_the_http_status(status: int, kind: type[CloudError]) -> None:
    assert classify("NeverHeardOf.That", status) is kind


def test_only_a_token_or_key_that_ran_out_is_worth_fetching_others() -> None:
    helped = {code for code, kind in ROWS if newer_credentials_may_help(kind("x", code=code))}
    assert helped == {
        "InvalidAccessKeyId.NotFound",
        "InvalidAccessKeyId.Inactive",
        "InvalidSecurityToken.Expired",
        "InvalidSecurityToken.Malformed",
        "InvalidSecurityToken.MismatchWithAccessKey",
        "MissingSecurityToken",
    }


# ---- and what the provider does about it ----------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "kind"), ROWS)
def test_the_provider_does_what_the_code_asks_for(code: str, kind: type[CloudError]) -> None:
    """Busy, slow, unanswered and "it is there": look, and send it again. Full or refused: told for this CIDR, and the
    other one is made. Denied: the whole ends at once."""
    error = classify(code)("x", code=code, request_id="R-1")
    cloud = Direct(error)
    wanted = [POD_CIDR, SERVICE_CIDR]
    if kind is Denied:
        with pytest.raises(Denied):
            asyncio.run(cloud.provider().ensure(wanted))
        assert cloud.writes() == ["CreateRouteEntry"]
        return
    refused = asyncio.run(cloud.provider().ensure(wanted))
    passes = kind in {Throttled, Conflict, Unavailable, Duplicate}
    assert refused == ({} if passes else {POD_CIDR: error})
    assert cloud.writes() == ["CreateRouteEntry"] * (3 if passes else 2)
    assert set(cloud.ours()) == ({str(POD_CIDR), str(SERVICE_CIDR)} if passes else {str(SERVICE_CIDR)})
    looks = [action for action, _ in cloud.sent]
    assert looks[looks.index("CreateRouteEntry") + 1] == "DescribeRouteEntryList"


@pytest.mark.parametrize(("code", "kind"), ROWS)
def test_a_deletion_does_what_the_code_asks_for(code: str, kind: type[CloudError]) -> None:
    cloud = Direct()
    provider = cloud.provider()
    asyncio.run(provider.ensure([POD_CIDR]))
    error = classify(code)("x", code=code)
    cloud.faults = [error]
    if kind is Denied:
        with pytest.raises(Denied):
            asyncio.run(provider.withdraw([POD_CIDR]))
        return
    refused = asyncio.run(provider.withdraw([POD_CIDR]))
    assert bool(refused) is bool(cloud.ours())
    assert refused in ({}, {POD_CIDR: error})


def test_a_code_that_nobody_knows_is_retried_a_few_times_and_then_told_for_its_cidr_with_its_request_id() -> None:
    kind = classify("NeverHeardOf.That", 400)
    cloud = Direct(*[kind("x", code="NeverHeardOf.That", request_id="R-7")] * PACE.tries)
    refused = asyncio.run(cloud.provider().ensure([POD_CIDR, SERVICE_CIDR]))
    assert set(refused) == {POD_CIDR}
    error = refused[POD_CIDR]
    assert isinstance(error, Unavailable)
    assert (error.code, error.request_id) == ("NeverHeardOf.That", "R-7")
    assert cloud.writes() == ["CreateRouteEntry"] * (PACE.tries + 1)
    assert cloud.ours() == [str(SERVICE_CIDR)]


@pytest.mark.parametrize("code", TABLE[Duplicate].split())
def test_a_duplicate_that_is_never_shown_is_told_for_its_cidr_alone(code: str) -> None:
    error = Duplicate("x", code=code)
    cloud = Direct(*[error] * PACE.tries)
    assert asyncio.run(cloud.provider().ensure([POD_CIDR, SERVICE_CIDR])) == {POD_CIDR: error}
    assert cloud.ours() == [str(SERVICE_CIDR)]


@pytest.mark.parametrize(
    "code", ["InvalidCIDRBlock.Duplicate", "InvalidRouteEntry.Duplicate", "RouterEntryConflict.Duplicated"]
)
def test_whichever_of_its_codes_the_service_picks_for_a_duplicate_the_table_decides(code: str) -> None:
    cloud = Direct("late", file=replace(world_file(settle_ms=0, tables=1), duplicate_code=code))
    cloud.fail = lambda action: "late" if len(cloud.writes()) == 1 else None
    assert asyncio.run(cloud.provider().ensure([POD_CIDR])) == {}
    assert cloud.ours() == [str(POD_CIDR)]
