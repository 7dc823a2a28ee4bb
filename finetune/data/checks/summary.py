"""The outcome of a check, as pages and JSON show it."""

from __future__ import annotations

from dataclasses import dataclass, field

from finetune.data.checks.findings import Finding
from finetune.data.sample import DepthSample


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What the samples of one entry look like.

    Attributes:
        key: dotted.
        frames, looked_at: how many frames there are, and how many of them were read.
        sizes: height x width -> number of frames.
        valid_share: median share of measured pixels.
        percentiles_m: of measured depth: 0, 1, 50, 95, 99.5, 100.
        bin_edges_m, counts: histogram of measured depth, edges at equal ratios.
        focal_px: least, median and most focal length at the network's size, pixels; None where no camera is known.
    """

    key: str
    frames: int
    looked_at: int
    sizes: dict[str, int]
    valid_share: float
    percentiles_m: dict[str, float]
    bin_edges_m: list[float]
    counts: list[int]
    focal_px: tuple[float, float, float] | None = None


@dataclass(kw_only=True)
class Checked:
    """The outcome of a check.

    Attributes:
        recipe: its file.
        findings: in order.
        summaries: one for each entry that could be read.
        notes: sentences about the checkpoint and what its weights fill.
        step: seconds, peak memory and hours of the run; None where no step was taken.
        worst: entry -> the samples that a page shows.
    """

    recipe: str
    findings: list[Finding] = field(default_factory=list)
    summaries: list[Summary] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    step: dict[str, float] | None = None
    worst: dict[str, list[DepthSample]] = field(default_factory=dict)

    @property
    def stops(self) -> bool:
        """Whether a run would be wasted."""
        return any(finding.severity == "stop" for finding in self.findings)
