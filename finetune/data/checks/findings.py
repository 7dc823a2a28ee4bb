"""Findings of a check of recipe, data and checkpoint: how bad each is, how it shows, and the line to write."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Literal, get_args

# What a check concludes from samples. It may be wrong, so a user can overrule it by its name in ``data.accept``.
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
    "image_levels",
    "checkpoint_kind",
]
JUDGMENTS: tuple[str, ...] = get_args(Accepted)
# Names of findings; those that are no judgments are facts. A cause comes before what follows from it: disparity taken
# for depth has a strange unit as well.
NAMES = (
    "files",
    *JUDGMENTS,
    "repeated",
    "near_duplicates",
    "one_recording",
    "checkpoint",
    "export",
    "evaluation",
    "run",
    "input_size",
    "step",
)
SEVERITIES = ("stop", "warn", "note")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One finding.

    Attributes:
        severity: ``stop``: a run would be wasted; ``warn``: look before you launch; ``note``: good to know.
        name: one of ``NAMES``.
        key: of the recipe, dotted; "" where the finding is about all of it.
        evidence: numbers and files, without a full stop.
        fix: the line to write or the thing to do, without a full stop; "" where nothing has to be done.
    """

    severity: Literal["stop", "warn", "note"]
    name: str
    key: str
    evidence: str
    fix: str = ""

    def __post_init__(self) -> None:
        assert self.severity in SEVERITIES and self.name in NAMES

    def sentence(self) -> str:
        """The whole finding, for the terminal and for errors."""
        subject = f"{self.key}: " if self.key else ""
        return f"{subject}{self.evidence}." + (f" {self.way_on}." if self.way_on else "")

    @property
    def way_on(self) -> str:
        """The fix; for a judgment also the key that accepts it."""
        if self.severity == "note" or self.name not in JUDGMENTS:
            return self.fix
        return f"{self.fix}. If it is as it should be, set data.accept: [{self.name}]"

    def to_mapping(self) -> dict[str, str]:
        """Plain values, for JSON."""
        return asdict(self)


def accept_findings(findings: Iterable[Finding], names: Collection[str]) -> list[Finding]:
    """The findings, with those that the recipe accepts turned into notes; ``names`` is ``data.accept``."""
    return [
        replace(finding, severity="note", evidence=f"accepted by data.accept: {finding.evidence}", fix="")
        if finding.name in names and finding.severity != "note"
        else finding
        for finding in findings
    ]


def sort_findings(findings: Iterable[Finding]) -> list[Finding]:
    """The worst first; of equally bad ones, causes before what follows from them."""
    return sorted(findings, key=lambda finding: (SEVERITIES.index(finding.severity), NAMES.index(finding.name)))
