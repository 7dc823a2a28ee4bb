"""What fine-tuning kept of its base on general data: which of two points is nearer, and the shape of depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.evaluation.metrics import TargetDepth
from finetune.evaluation.ordinal_pairs import AnnotatedImage, Pair, PairScore, score_pairs
from finetune.evaluation.protocols import Protocol
from finetune.utils.kinds import Kind
from finetune.utils.text import count_noun

# More percentage points of lost order than this are a warning.
MAX_LOST_POINTS = 2.0
PAIRS_A_FRAME = 40
# Depths of a pair differ at least by this factor: below it, the answer says more about rounding than about a scene.
MIN_DEPTH_RATIO = 1.1
# Inverse depth is aligned for both kinds, so that a relative base and a metric model are measured alike.
ALIGNED = "plain+align=scale_shift_inverse"


def draw_pairs(depth_m: NDArray[np.float32], usable: NDArray[np.bool_], number: int) -> tuple[Pair, ...]:
    """
    Pairs of points whose order is known from measured depth; the same for the same arguments.

    Args:
        depth_m: (H, W), meters.
        usable: (H, W), the pixels to take points from.
        number: of the frame; other frames get other points.

    Returns:
        At most ``PAIRS_A_FRAME`` pairs, all equally likely among those that differ by ``MIN_DEPTH_RATIO``; fewer where
        few of them do.
    """
    rows, columns = np.nonzero(usable)
    if not len(rows):
        return ()
    chosen = np.random.default_rng((number,)).integers(len(rows), size=(8 * PAIRS_A_FRAME, 2))
    depths = depth_m[usable][chosen]
    chosen, depths = (values[depths.max(1) >= MIN_DEPTH_RATIO * depths.min(1)] for values in (chosen, depths))
    ordered = np.where((depths[:, :1] < depths[:, 1:]), chosen, chosen[:, ::-1])[:PAIRS_A_FRAME]
    points = [[(int(rows[i]), int(columns[i])) for i in pair] for pair in ordered]
    return tuple(Pair(near=near, far=far, place=place) for place, (near, far) in enumerate(points))


@dataclass(kw_only=True)
class GeneralScore:
    """
    One network on general data.

    Attributes:
        pairs: of the points.
        abs_rels: AbsRel of each frame with measured depth, after scale and shift were fitted to it in inverse depth.
    """

    pairs: PairScore = field(default_factory=PairScore)
    abs_rels: list[float] = field(default_factory=list)

    def add_pairs(self, image: AnnotatedImage, prediction: NDArray[np.floating], kind: Kind) -> None:
        """
        Args:
            image: its pairs.
            prediction: (H, W) of the image, meters of a ``metric`` network, inverse depth of a ``relative`` one.
            kind: which of both.

        Raises:
            DataError: a point is outside, or the prediction there is not finite.
        """
        for result in score_pairs(image, prediction, kind):
            self.pairs.add(result)

    def add_depth(
        self,
        prediction: NDArray[np.floating],
        depth_m: NDArray[np.float32],
        usable: NDArray[np.bool_],
        protocol: Protocol,
    ) -> None:
        """
        Args:
            prediction: as for ``add_pairs``, of the protocol's kind.
            depth_m: (H, W), meters.
            usable: (H, W), the pixels that count; at least one.
            protocol: ``ALIGNED``, with the range.
        """
        pred_m = protocol.depth_m(prediction, depth_m, usable)[usable]
        compared = protocol.compared(pred_m, TargetDepth(depth_m[usable].astype(np.float64)))
        self.abs_rels.append(protocol.scores(compared)["abs_rel"])

    @property
    def abs_rel(self) -> float | None:
        """The mean over frames; None where no frame has measured depth."""
        return float(np.mean(self.abs_rels)) if self.abs_rels else None

    def to_mapping(self) -> dict[str, Any]:
        """For JSON."""
        return {"ordering": self.pairs.to_mapping(), "abs_rel": self.abs_rel}


@dataclass(frozen=True, kw_only=True)
class Retention:
    """
    The base and the fine-tuned network on the same general data.

    Attributes:
        data: what it is, in words.
        max_depth_m: up to which depth pairs and pixels count, meters; None: pairs that people annotated, at any depth.
        base, finetuned: at the same size of input, each by the direction of its own kind.
    """

    data: str
    max_depth_m: float | None
    base: GeneralScore
    finetuned: GeneralScore

    @property
    def lost_points(self) -> float:
        """By how many percentage points fewer pairs are right than with the base; below 0 where more are."""
        return 100 * (self.base.pairs.accuracy - self.finetuned.pairs.accuracy)

    def __str__(self) -> str:
        before, after = (score.pairs.accuracy for score in (self.base, self.finetuned))
        aligned = [f"{score.abs_rel:.4f}" for score in (self.base, self.finetuned) if score.abs_rel is not None]
        depth = f"; AbsRel after alignment {' -> '.join(aligned)}" if aligned else ""
        of_both = f"general ordering {100 * before:.1f} -> {100 * after:.1f} %{depth}"
        return f"{of_both} (base -> finetuned, {self.describe_data()})"

    def describe_data(self) -> str:
        """What was measured on."""
        pairs = self.base.pairs
        until = "" if self.max_depth_m is None else f" up to {self.max_depth_m:g} m"
        counts = f"{count_noun(pairs.pairs, 'pair')} of points{until} in {count_noun(len(pairs.images), 'image')}"
        return f"{self.data}, {counts}"

    def warning(self) -> str | None:
        """A sentence where more is lost than ``MAX_LOST_POINTS``; the order of annotated points is noisy below that."""
        if self.lost_points <= MAX_LOST_POINTS:
            return None
        return (
            f"warning, retention: general ordering fell by {self.lost_points:.1f} points on {self.data}, more than "
            f"{MAX_LOST_POINTS:g}: the network forgets what its base knew of other places. If you need that, mix "
            "general frames into data.train, a tenth of the samples to begin with, or lower optim.lr."
        )

    def to_mapping(self) -> dict[str, Any]:
        """Its object in ``evaluation.json``."""
        return {
            "data": self.data,
            "max_depth_m": self.max_depth_m,
            "base": self.base.to_mapping(),
            "finetuned": self.finetuned.to_mapping(),
            "lost_points": self.lost_points,
        }


def name_frame(source: str, pairs: Sequence[Pair], of: str) -> AnnotatedImage:
    """A frame with its pairs, as ``score_pairs`` takes it; ``of`` is named by errors."""
    return AnnotatedImage(name=source, pairs=tuple(pairs), source=Path(of))
