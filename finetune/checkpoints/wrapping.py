"""Undoes what training scripts put around weights: nesting, and prefixes of wrapper classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NESTS = ("model", "state_dict")
WRAPPERS = {"module", "_orig_mod"}  # DistributedDataParallel's and torch.compile's


def unwrap(content: Mapping[Any, Any]) -> tuple[dict[str, Any], bool]:
    """
    Args:
        content: what was in the file; at some depth under ``model`` / ``state_dict``, names with weights. A key that is
            no string becomes one, so that it can be named as a name of no known format.

    Returns:
        The weights by their plain names, and whether they were nested, as a training checkpoint has them.
    """
    nested = False
    while inner := next((content[nest] for nest in NESTS if isinstance(content.get(nest), Mapping)), None):
        content, nested = inner, True
    return {_plain(str(name)): value for name, value in content.items()}, nested


def _plain(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)
