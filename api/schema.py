"""How what the API takes and gives is declared: the text under a field is its description in the OpenAPI document."""

from __future__ import annotations

from typing import Final

from pydantic import ConfigDict

SHOWN: Final = ConfigDict(use_attribute_docstrings=True)
"""For what we answer."""

TAKEN: Final = ConfigDict(use_attribute_docstrings=True, extra="forbid")
"""For what we are sent: a field that we do not know is a typing error."""
