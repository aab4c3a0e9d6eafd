"""Who may do what: as much of RAM as makes a missing permission real. Pure.

A principal (``role/NAME`` or ``key/ID``) has a list of actions as a policy names them, such as ``vpc:CreateRouteEntry``
or ``vpc:Describe*``; resources and conditions are not looked at. The list may change while the world lives.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from cloud.emulator.actions import product
from cloud.emulator.params import Body
from cloud.emulator.world import ApiError
from cloud.emulator.worldfile import WorldFile


class Forbidden(ApiError):
    """403, with the detail that the cloud gives of it."""

    def __init__(self, principal: str, action: str) -> None:
        message = "User not authorized to operate on the specified resource, or this API doesn't support RAM."
        super().__init__("Forbidden.RAM", message, status=403)
        kind = "AssumedRoleUser" if principal.startswith("role/") else "SubUser"
        self.detail: Body = {
            "AuthAction": action,
            "AuthPrincipalType": kind,
            "AuthPrincipalDisplayName": principal.partition("/")[2],
            "PolicyType": "AccountLevelIdentityBasedPolicy",
            "NoPermissionType": "ImplicitDeny",
        }


class Permissions:
    """The policies of a world."""

    def __init__(self, file: WorldFile) -> None:
        self._allowed = {f"key/{key.id}": tuple(key.allow) for key in file.access_key}
        if file.role is not None:
            self._allowed[f"role/{file.role.name}"] = tuple(file.role.allow)

    def allow(self, principal: str, actions: Sequence[str]) -> None:
        """Set what a principal may do; KeyError where there is none of that name."""
        if principal not in self._allowed:
            raise KeyError(principal)
        self._allowed[principal] = tuple(actions)

    def shown(self) -> dict[str, list[str]]:
        """Return all of it."""
        return {principal: list(actions) for principal, actions in self._allowed.items()}

    def check(self, principal: str, action: str) -> None:
        """Return if the principal may call `action`, else raise `Forbidden`."""
        name = f"{product(action)}:{action}"
        if not any(fnmatchcase(name, pattern) for pattern in self._allowed.get(principal, ())):
            raise Forbidden(principal, name)
