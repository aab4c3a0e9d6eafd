"""A call's parameters as the API reads them. Pure.

Unknown parameters are ignored, booleans are read whatever their case, and a list is spelled ``Name.1``, ``Name.2`` or,
where its items have fields, ``Name.1.Field``: by query and by form alike.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from cloud.emulator.world import ApiError

T = TypeVar("T")
Params = Mapping[str, str]
Body = dict[str, Any]

MOST_ITEMS: Final = 50
_NUMBERED: Final = re.compile(r"[1-9]\d{0,3}", re.ASCII)


def must(params: Params, name: str) -> str:
    """Return a parameter that has to be there."""
    if not params.get(name):
        raise ApiError("MissingParameter", f"Miss mandatory parameter. {name}")
    return params[name]


def number(params: Params, name: str, default: int) -> int:
    """Return a whole number."""
    try:
        return int(params.get(name) or default)
    except ValueError:
        raise ApiError("InvalidParameter", f"Specified parameter {name} is not a number.") from None


def flag(params: Params, name: str) -> bool:
    """Return a boolean; false where there is none."""
    return params.get(name, "").lower() == "true"


def values(params: Params, name: str) -> list[str]:
    """Return the list ``Name.1``, ``Name.2``, ... in the order of its numbers."""
    return [item[""] for item in records(params, name) if item.get("")]


def records(params: Params, name: str) -> list[dict[str, str]]:
    """Return the list ``Name.N.Field`` as one mapping per N, in the order of the numbers; ``Name.N`` has no field."""
    found: dict[int, dict[str, str]] = {}
    for key, value in params.items():
        outer, _, rest = key.partition(".")
        index, _, field = rest.partition(".")
        if outer == name and _NUMBERED.fullmatch(index):
            found.setdefault(int(index), {})[field] = value
    return [found[index] for index in sorted(found)]


def page(items: Sequence[T], params: Params) -> tuple[Sequence[T], Body]:
    """Return one page of a list that numbers its pages, and what the answer says of it."""
    at, size = number(params, "PageNumber", 1), number(params, "PageSize", 10)
    if at < 1 or not 1 <= size <= MOST_ITEMS:
        raise ApiError("InvalidParameter", f"PageNumber starts at 1, and PageSize is between 1 and {MOST_ITEMS}.")
    start = (at - 1) * size
    return items[start : start + size], {"PageNumber": at, "PageSize": size, "TotalCount": len(items)}


def slice_of(items: Sequence[T], params: Params, size: int) -> tuple[Sequence[T], Body]:
    """Return the part of a list that follows ``NextToken``, and what the answer says of it."""
    start = _offset(params.get("NextToken", ""))
    more = start + size < len(items)
    token = base64.urlsafe_b64encode(str(start + size).encode()).decode() if more else ""
    return items[start : start + size], {"TotalCount": len(items), "NextToken": token}


def _offset(token: str) -> int:
    try:
        return int(base64.urlsafe_b64decode(token)) if token else 0
    except (ValueError, binascii.Error):
        raise ApiError("IllegalParam.NextToken", "Specified NextToken is not valid.") from None
