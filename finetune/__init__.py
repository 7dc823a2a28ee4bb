"""Fine-tune relative-depth checkpoints into metric depth for your own camera."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finetune.predictor import load_model

__all__ = ["load_model"]


def __getattr__(name: str) -> Any:
    """``load_model``, on first use: it imports torch, which takes seconds."""
    if name == "load_model":
        from finetune.predictor import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
