"""What a step costs: its time, the memory at its peak, and what that means for a whole run."""

from __future__ import annotations

import resource
import sys

import torch

from finetune.utils.text import count_noun


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory so far: on a GPU what this process had of the GPU's, else what the process had at all."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Linux counts kilobytes, macOS bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def cost_sentence(seconds_a_step: float, steps: int, peak_bytes: float, device: torch.device) -> str:
    """How long so many steps take and how much memory they need, without a full stop."""
    memory = "GPU memory" if device.type == "cuda" else "memory"
    return (
        f"{describe_duration(seconds_a_step * steps)} for {count_noun(steps, 'step')}, evaluation extra; "
        f"peak {memory} {peak_bytes / 1e9:.1f} GB"
    )


def describe_duration(seconds: float) -> str:
    """A duration in the unit that people would use: "about 5 minutes"."""
    for name, length_s in (("day", 86400.0), ("hour", 3600.0), ("minute", 60.0), ("second", 1.0)):
        count = seconds / length_s
        # The next smaller unit up to twice a unit: 100 minutes rather than 1.7 hours.
        if count >= 2 or name == "second":
            number = f"{count:.1f}" if name in ("day", "hour") and count < 10 else f"{max(1, round(count))}"
            number = number.removesuffix(".0")
            return f"about {number} {name}{'s' * (number != '1')}"
    raise AssertionError("seconds are the last unit")
