"""What an error code of the Aliyun API means for us: which `CloudError` it is. Pure.

The codes are those of the error tables of the VPC API reference (2016-04-28), with their misspellings, and of the API
gateway. They are matched whatever their case, because the service itself spells the same word in two ways
(`InvalidCidrBlock`, `InvalidCIDRBlock.Duplicate`). An entry that is "not found" is a `Conflict`: what we read is old.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from cloud.provider import CloudError, Conflict, Denied, Duplicate, QuotaExceeded, Rejected, Throttled, Unavailable

RETRIABLE: Final = (Throttled, Conflict, Unavailable)

_EXACT: Final[Mapping[type[CloudError], tuple[str, ...]]] = {
    Throttled: ("Throttling", "Rejected.Throttling"),
    Conflict: (
        "TaskConflict",
        "OperationConflict",
        "IncorrectStatus",
        "IncorrectRouteEntryStatus",
        "IncorrcetRouteEntryStatus",
        "IncorrectVpcStatus",
        "IncorrectVSwitchStatus",
        "IncorrectInstanceStatus",
        "IncorrectHaVipStatus",
        "InvalidVBRStatus",
        "VPC_ROUTE_ENTRY_STATUS_ERROR",
        "OperationFailed.DistibuteLock",
        "LastTokenProcessing",
        "OperationFailed.LastTokenProcessing",
        "Forbbiden",  # "Specified RouteEntry cannot allowed delete by openApi": passes by itself
        "InvalidRouteEntry",  # these four: gone in the meantime
        "InvalidRouteEntry.NotFound",
        "InvalidRouteEntryId.NotFound",
        "VPC_ROUTER_ENTRY_NOT_EXIST",
        "OperationDenied.NextHopNotChanged",  # already as we wanted it
    ),
    Duplicate: (
        "InvalidCIDRBlock.Duplicate",
        "InvalidRouteEntry.Duplicate",
        "Duplicated.VpcNextHop",
        "RouterEntryConflict.Duplicated",
        "RouteConflict.AlreadyExist",
        "VPC_ROUTE_ENTRY_CIDR_BLOCK_DUPLICATE",
    ),
    QuotaExceeded: ("QuotaExceeded", "CountLimitExceed"),
    Denied: (
        "NoPermission",
        "Forbidden",
        "IncompleteSignature",
        "SignatureDoesNotMatch",
        "InvalidAccessKeySecret",  # the SDK's own name for a wrong secret
        "InvalidAccessKeyId",
        "InvalidSecurityToken",
        "MissingSecurityToken",
        "MissingAccessKeyId",
        "InvalidTimeStamp.Expired",  # our clock is wrong by more than a quarter of an hour
        "SDK.InvalidCredential",
    ),
    Unavailable: (
        "InternalError",
        "Internal.Error",
        "VPC.ERROR",
        "ServiceUnavailable",
        "SystemBusy",
        "UnknownError",
        "SignatureNonceUsed",  # something on the way sent a call twice: the first one may have been taken
        "SDK.HttpError",
        "SDK.UnknownServerError",
        "SDK.EndpointResolvingError",
    ),
    Rejected: (
        "DryRunOperation",
        "OperationDenied",
        "OperationUnsupported",
        "OperationFailed.InstanceDismatchCurrentVpc",
        "OperationFailed.FilterParamUnderWrongRouteType",
        "OperationFailed.QueryCenEntry",
        "ResourceNotAssociated",
        "IdempotentParameterMismatch",
        "UnsupportedHTTPMethod",
    ),
}
# A code that is none of these by name, but whose family is known by how it begins.
_FAMILIES: Final[tuple[tuple[str, type[CloudError]], ...]] = (
    ("invalid", Rejected),
    ("illegalparam", Rejected),
    ("missing", Rejected),
    ("mismatch", Rejected),
    ("paramexclusive", Rejected),
    ("dependencyviolation", Rejected),
    ("unsupportedoperation", Rejected),
)
_BY_CODE: Final = {code.lower(): kind for kind, codes in _EXACT.items() for code in codes}
# Their cause is in the credentials, and newer ones may mend it.
_STALE: Final = ("invalidsecuritytoken", "invalidaccesskeyid", "missingsecuritytoken")
# The region, or this kind of entry, does not know the call (yet).
_NOT_OFFERED: Final = (
    "invalidaction.notfound",
    "invalidapi.notfound",
    "operationunsupported",
    "unsupportedoperation",
    "operationdenied.nexthoptypenotpermitted",
)


def classify(code: str, status: int = 0) -> type[CloudError]:
    """Return the error that `code` is; `status` is HTTP's (0: unknown) and decides where the code says nothing.

    A code is looked up whole, then without its last dotted part, and so on: ``QuotaExceeded.HaVipRouteEntry`` is a
    ``QuotaExceeded``. One that nobody has heard of is `Unavailable`, so it is retried and then shown.
    """
    name = code.lower()
    while name:
        if name in _BY_CODE:
            return _BY_CODE[name]
        name = name.rpartition(".")[0]
    for beginning, kind in _FAMILIES:
        if code.lower().startswith(beginning):
            return kind
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Throttled
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return Denied
    return Unavailable


def is_not_offered(error: CloudError) -> bool:
    """Say whether the cloud refused the *kind* of call, so that another kind may do the same: no fault of the entry."""
    return isinstance(error, Rejected) and error.code.lower().startswith(_NOT_OFFERED)


def newer_credentials_may_help(error: CloudError) -> bool:
    """Say whether the same call can succeed with freshly fetched credentials."""
    return isinstance(error, Denied) and error.code.lower().startswith(_STALE)
