"""Undoes what training scripts put around weights: nesting, and prefixes of wrapper classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NESTS = ("model", "state_dict")
# DistributedDataParallel's, torch.compile's, and that of a layer which peft has put an adapter beside.
WRAPPERS = {"module", "_orig_mod", "base_layer"}
# What peft puts before all names; merged or not, what it wraps is called model.
PEFT = "base_model.model."


def unwrap(content: Mapping[Any, Any]) -> tuple[dict[str, Any], bool]:
    """
    Args:
        content: what was in the file; at some depth under ``model`` / ``state_dict``, names with weights. A key that is
            no string becomes one, so that it can be named as a name of no known format.

    Returns:
        The weights by their plain names, and whether they were nested, as a training checkpoint has them.
    """
    nested = False
    seen = {id(content)}  # a mapping may hold itself
    while inner := next((content[nest] for nest in NESTS if isinstance(content.get(nest), Mapping)), None):
        if id(inner) in seen:
            break
        seen.add(id(inner))
        content, nested = inner, True
    return {_plain(str(name)): value for name, value in content.items()}, nested


def _plain(name: str) -> str:
    """The name without its wrappers, however they lie inside each other."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS).replace(PEFT, "")
