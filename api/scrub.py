"""What may leave the machine in a support bundle: no key, no token, no signature, in no encoding.

Three nets, each finer than needed, because a report that says less is better than one that says too much:
what has the shape of a secret of ours or of the cloud's, what is known to be one, and what looks as random as one. Text
that is encoded (URL, base64, base32, hex, one in the other, or byte by byte in any usual notation) is decoded and
looked at again.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Final
from urllib.parse import unquote

SCRUBBED: Final = "[scrubbed]"

_NAMES: Final = (
    r"(?:x-acs-)?signature(?:nonce)?|access_?key(?:_?id|_?secret)?|security_?token|secret|password|passwd|"
    r"authorization|join|key|token"
)
_SHAPES: Final = tuple(
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)",
        r"\bnht_[A-Za-z0-9_-]{8,}",
        r"\bnexthop1_[A-Za-z0-9_-]{8,}",
        r"\bbearer\s+[^\s\"',;]+",
        r"\b(LTAI|STS\.)[A-Za-z0-9._-]{6,}",
        rf"""(?P<name>["']?\b({_NAMES})["']?\s*[=:]\s*)(?P<quote>["']?)[^\s"'&,;}}]+""",
    )
)
_WORD: Final = re.compile(r"[A-Za-z0-9+/_=%.~-]{16,}")
_HEX: Final = re.compile(r"(?:[0-9A-Fa-f]{2}){16,}")
_HEXES: Final = "[0-9A-Fa-f]{2}"
# Bytes one by one: how each is written, what stands between two, and in which base its number is.
_BYTES: Final = tuple(
    (re.compile(f"{one}(?:{between}{one}){{11,}}"), re.compile(one.replace("(?:", "(", 1)), base)
    for one, between, base in (
        (rf"\\x(?:{_HEXES})", "", 16),
        (rf"\\u00(?:{_HEXES})", "", 16),
        (r"\\(?:[0-3][0-7]{2})", "", 8),
        (rf"&#x(?:{_HEXES});", "", 16),
        (r"&#(?:[0-9]{2,3});", "", 10),
        (rf"0x(?:{_HEXES})\b", r"[,\s]\s*", 16),
        (rf"\b(?:{_HEXES})\b", r"[:\s-]", 16),
        (r"\b(?:[0-9]{2,3})\b", r"[,\s]\s*", 10),
    )
)
_BASE32: Final = re.compile(r"[A-Z2-7]{24,}=*|[a-z2-7]{24,}=*")
_TEXT: Final = re.compile(r"[\s!-~]*")
_RANDOM: Final = 24  # characters in a row with capitals, small letters and digits: a cloud's secret has 30
_DEEP: Final = 3  # encodings in one another


class Scrubber:
    """Takes `secrets` out of texts, and whatever else has the look of one."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = tuple(sorted({each for each in secrets if len(each) >= 6}, key=len, reverse=True))

    def __call__(self, text: str) -> str:
        """Return the text without them."""
        for secret in self._secrets:
            text = text.replace(secret, SCRUBBED)
        for shape in _SHAPES:
            text = shape.sub(_keep_name, text)
        for run, one, base in _BYTES:
            text = run.sub(partial(self._spelt, one, base), text)
        return _WORD.sub(lambda match: SCRUBBED if self._suspicious(match[0]) else match[0], text)

    def _spelt(self, one: re.Pattern[str], base: int, run: re.Match[str]) -> str:
        """Return bytes that are written one by one, or that they are scrubbed."""
        inner = "".join(chr(int(digits, base)) for digits in one.findall(run[0]))
        hides = self._hides(inner) or any(self._suspicious(word) for word in _WORD.findall(inner))
        return SCRUBBED if hides else run[0]

    def _suspicious(self, word: str) -> bool:
        if word.strip("=") == "" or SCRUBBED in word:
            return False
        return _looks_random(word) or any(map(self._hides, _decoded(word, _DEEP)))

    def _hides(self, inner: str) -> bool:
        """Return whether what was decoded is, or holds, a secret."""
        known = any(secret in inner for secret in self._secrets) or any(shape.search(inner) for shape in _SHAPES[:5])
        return known or bool(_TEXT.fullmatch(inner) and _looks_random(inner))


def _keep_name(match: re.Match[str]) -> str:
    """Leave the name of a field, so that a person sees what was there."""
    name = match.groupdict().get("name")
    return SCRUBBED if name is None else f"{name}{match['quote']}{SCRUBBED}"


def _looks_random(word: str) -> bool:
    """Return whether a run of letters and digits is long and mixed as only keys are."""
    for run in re.split(r"[^A-Za-z0-9+/_=-]", word):
        bare = run.strip("=")
        kinds = (any(map(str.islower, bare)), any(map(str.isupper, bare)), any(map(str.isdigit, bare)))
        if len(bare) >= _RANDOM and all(kinds):
            return True
        if _HEX.search(bare):
            return True
    return False


def _decoded(word: str, deep: int) -> Iterator[str]:
    """Yield what a word may stand for, in any encoding, and what that may stand for."""
    if deep == 0:
        return
    for inner in _once(word):
        if inner != word:
            yield inner
            for each in _WORD.findall(inner):
                yield from _decoded(each, deep - 1)


def _once(word: str) -> Iterator[str]:
    if "%" in word:
        yield unquote(word)
    if _HEX.fullmatch(word):
        yield bytes.fromhex(word).decode("latin-1")
    if _BASE32.fullmatch(word):
        for skip in range(8):
            part = word.rstrip("=")[skip:].upper()
            with contextlib.suppress(binascii.Error, ValueError):
                yield base64.b32decode(part[: len(part) // 8 * 8]).decode("latin-1")
    bare = word.rstrip("=").replace("-", "+").replace("_", "/")
    if re.fullmatch(r"[A-Za-z0-9+/]+", bare):
        for skip in range(4):  # what it is a part of may begin elsewhere
            part = bare[skip:]
            part = part[: len(part) - len(part) % 4] if len(part) % 4 == 1 else part
            try:
                yield base64.b64decode(part + "=" * (-len(part) % 4)).decode("latin-1")
            except (binascii.Error, ValueError):
                continue
