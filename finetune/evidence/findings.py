"""What a look at recipe, data and checkpoint found: how bad it is, how one can tell, and the line to write."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

SEVERITIES = ("stop", "warn", "note")
# Names of findings, causes before what follows from them: disparity taken for depth has a strange unit as well.
NAMES = (
    "files",
    "focal",
    "depth_is",
    "mirrored",
    "registration",
    "sentinel",
    "unit",
    "constant",
    "max_depth",
    "repeated",
    "near_duplicates",
    "one_recording",
    "checkpoint",
    "input_size",
    "step",
)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One finding.

    Attributes:
        severity: ``stop``: a run would be wasted; ``warn``: look before you launch; ``note``: good to know.
        name: one of ``NAMES``.
        key: of the recipe, dotted; "" where it is about the whole.
        evidence: numbers and files, without a full stop.
        fix: the line to write or the thing to do, without a full stop; "" of a note that asks for nothing.
    """

    severity: Literal["stop", "warn", "note"]
    name: str
    key: str
    evidence: str
    fix: str = ""

    def __post_init__(self) -> None:
        assert self.severity in SEVERITIES and self.name in NAMES

    def sentence(self) -> str:
        """For the terminal and for errors."""
        subject = f"{self.key}: " if self.key else ""
        return f"{subject}{self.evidence}." + (f" {self.fix}." if self.fix else "")

    def to_mapping(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """The worst first, among these causes before what follows from them."""
    return sorted(findings, key=lambda one: (SEVERITIES.index(one.severity), NAMES.index(one.name)))
