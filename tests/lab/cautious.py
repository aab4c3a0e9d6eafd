"""A hook for schemathesis: it may take back any token but the one with which it came.

It learns the names from the list of tokens, and would lock itself out, sooner or later.
"""

from __future__ import annotations

from typing import Any, Final

import schemathesis

OWN: Final = "schemathesis"
"""The name of the token."""


@schemathesis.hook
def before_call(_context: Any, case: Any, _options: Any) -> None:
    """Aim at a token that is not there instead."""
    if case.path == "/v1/tokens/{name}" and case.path_parameters.get("name") == OWN:
        case.path_parameters["name"] = f"not-{OWN}"
