"""Every error code that the API's pages list, and what it asks of us."""

from __future__ import annotations

import pytest

from cloud.errors import classify, newer_credentials_may_help
from cloud.provider import CloudError, Conflict, Denied, Duplicate, QuotaExceeded, Rejected, Throttled, Unavailable

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
        InvalidTimeStamp.Format InvalidProtocol.NeedSsl""",
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
