"""Where no tunnel may lead, in whichever direction, whatever anybody has configured. Pure."""

from __future__ import annotations

from typing import Final

CLOSED: Final = ("0.0.0.0/8", "100.100.100.200/32", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4")
"""This network, Aliyun's metadata, loopback, link-local with other clouds' metadata, multicast, reserved (RFC 6890)."""

CLOSED6: Final = ("::/127", "::ffff:0.0.0.0/96", "fd00:ec2::254/128", "fe80::/10", "ff00::/8")
"""Unspecified and loopback, mapped IPv4, a cloud's metadata, link-local, multicast (RFC 6890)."""
