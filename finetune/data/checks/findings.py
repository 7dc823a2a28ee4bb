"""What a look at recipe, data and checkpoint found: how bad it is, how one can tell, and the line to write."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

# The names of findings that are judgments; ``data.accept`` takes them.
Accepted = Literal[
    "focal",
    "bits",
    "depth_is",
    "mirrored",
    "registration",
    "sentinel",
    "unit",
    "few_points",
    "constant",
    "max_depth",
    "checkpoint_kind",
    "image_levels",
]
SEVERITIES = ("stop", "warn", "note")
# Names of findings, causes before what follows from them: disparity taken for depth has a strange unit as well.
NAMES = (
    "files",
    "focal",
    "bits",
    "depth_is",
    "mirrored",
    "registration",
    "sentinel",
    "unit",
    "few_points",
    "constant",
    "max_depth",
    "image_levels",
    "repeated",
    "near_duplicates",
    "one_recording",
    "checkpoint",
    "checkpoint_kind",
    "export",
    "evaluation",
    "run",
    "input_size",
    "step",
)
# What a look at samples concludes, and may be wrong about: ``data.accept`` takes these names. The others are facts.
JUDGMENTS: tuple[str, ...] = get_args(Accepted)


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
        return f"{subject}{self.evidence}." + (f" {self.way_on}." if self.way_on else "")

    @property
    def way_on(self) -> str:
        """The fix, and of a judgment the key that accepts it."""
        if self.severity == "note" or self.name not in JUDGMENTS:
            return self.fix
        return f"{self.fix}. If it is as it should be, set data.accept: [{self.name}]"

    def to_mapping(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def accept_findings(findings: Iterable[Finding], names: Collection[str]) -> list[Finding]:
    """The findings, of which those that the recipe accepts are notes; ``names`` as of ``data.accept``."""
    return [
        replace(one, severity="note", evidence=f"accepted by data.accept: {one.evidence}", fix="")
        if one.name in names and one.severity != "note"
        else one
        for one in findings
    ]


def sort_findings(findings: Iterable[Finding]) -> list[Finding]:
    """The worst first, among these causes before what follows from them."""
    return sorted(findings, key=lambda one: (SEVERITIES.index(one.severity), NAMES.index(one.name)))
