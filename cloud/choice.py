"""Which route tables of the VPC are ours to program. Pure.

Those that the configuration names, together with those that carry its tag; where it says neither, every table that a
vSwitch of the VPC uses. A vSwitch whose table is not among them is bypassed: its hosts reach none of our CIDRs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cloud.answers import Place


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag of a route table; an empty `value` means any."""

    key: str
    value: str = ""

    @classmethod
    def parse(cls, text: str) -> Tag:
        """Read ``KEY`` or ``KEY=VALUE``; raise `ValueError`. Up to 128 characters each (TagResources, VPC API)."""
        key, _, value = text.partition("=")
        if not key or len(key) > 128 or len(value) > 128 or key.startswith(("aliyun", "acs:")):
            raise ValueError(text)
        return cls(key, value)

    def asked(self) -> Mapping[str, str]:
        """Return the tag as a list call takes it."""
        return {"Key": self.key} | ({"Value": self.value} if self.value else {})

    def __str__(self) -> str:
        return f"{self.key}={self.value}" if self.value else self.key


@dataclass(frozen=True, slots=True)
class Choice:
    """What the configuration says of the tables."""

    named: tuple[str, ...] = ()
    tag: Tag | None = None

    def tables(self, places: Sequence[Place], tagged: Sequence[str]) -> tuple[str, ...]:
        """Return the tables to program, none twice; `tagged` are those that carry the tag."""
        if self.named or self.tag:
            return tuple(dict.fromkeys((*self.named, *tagged)))
        return tuple(sorted({each.table for each in places if each.table}))
