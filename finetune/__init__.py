"""Fine-tune relative-depth checkpoints into metric depth for your own camera."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finetune.inference.predictor import adapter_base, load_model

__version__ = "0.1.0"
__all__ = ["__version__", "adapter_base", "load_model"]


def __getattr__(name: str) -> object:
    """Import on first use what needs torch, whose import takes seconds."""
    if name in ("adapter_base", "load_model"):
        from finetune.inference import predictor

        return getattr(predictor, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """All public names, also those that are not imported yet."""
    return sorted({*globals(), *__all__})
