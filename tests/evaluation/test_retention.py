"""Pairs from measured depth, and what was kept, by hand."""

import numpy as np
import pytest

from finetune.evaluation.ordinal_pairs import PairScore
from finetune.evaluation.protocols import Protocol
from finetune.evaluation.retention import (
    ALIGNED,
    MIN_DEPTH_RATIO,
    PAIRS_A_FRAME,
    GeneralScore,
    Retention,
    draw_pairs,
    name_frame,
)

RAMP_M = np.linspace(1, 4, 30, dtype=np.float32)[:, None].repeat(20, 1)


def test_pairs_are_those_whose_order_is_clear() -> None:
    usable = np.ones_like(RAMP_M, bool)
    usable[:, 10:] = False
    pairs = draw_pairs(RAMP_M, usable, 3)
    assert len(pairs) == PAIRS_A_FRAME
    for number, pair in enumerate(pairs):
        (near, _), (far, _) = pair.near, pair.far
        assert RAMP_M[int(far), 0] >= MIN_DEPTH_RATIO * RAMP_M[int(near), 0]
        assert pair.near[1] < 10 and pair.far[1] < 10
        assert pair.place == number
    assert pairs == draw_pairs(RAMP_M, usable, 3) != draw_pairs(RAMP_M, usable, 4)
    # A wall has no order, and neither has what was not measured.
    assert draw_pairs(np.full_like(RAMP_M, 2.0), usable, 3) == ()
    assert draw_pairs(RAMP_M, np.zeros_like(usable), 3) == ()


def test_a_network_is_scored_by_the_direction_of_its_kind() -> None:
    usable = np.ones_like(RAMP_M, bool)
    usable[0] = False
    named = name_frame("ramp", draw_pairs(RAMP_M, usable, 0), "here")
    # 2 / depth + 1 is inverse depth up to scale and shift, 3 depth is depth up to scale: both are right everywhere.
    for kind, prediction, right in (
        ("relative", 2 / RAMP_M + 1, PAIRS_A_FRAME),
        ("metric", 3 * RAMP_M, PAIRS_A_FRAME),
        ("metric", 2 / RAMP_M + 1, 0),
    ):
        score = GeneralScore()
        protocol = Protocol(name=ALIGNED, min_depth_m=0.1, max_depth_m=10.0, kind=kind)  # type: ignore[arg-type]
        score.add_pairs(named, prediction, kind)  # type: ignore[arg-type]
        score.add_depth(prediction, RAMP_M, usable, protocol)
        assert (score.pairs.pairs, score.pairs.right) == (PAIRS_A_FRAME, right)
        if right:
            assert score.abs_rel == pytest.approx(0, abs=1e-6)
    # The wrong way round the best scale is 0: the harmonic mean everywhere.
    inverse = 1 / RAMP_M[usable].astype(np.float64)
    assert score.abs_rel == pytest.approx(np.mean(np.abs(1 / inverse.mean() - 1 / inverse) * inverse), rel=1e-5)


def kept(right: int, abs_rel: float | None = None) -> GeneralScore:
    return GeneralScore(
        pairs=PairScore(pairs=1000, right=right, images={"a", "b"}), abs_rels=[] if abs_rel is None else [abs_rel]
    )


def test_the_line_and_the_warning() -> None:
    found = Retention(data="pairs.json", max_depth_m=None, base=kept(953), finetuned=kept(941))
    expected = "general ordering 95.3 -> 94.1 % (base -> finetuned, pairs.json, 1000 pairs of points in 2 images)"
    assert str(found) == expected
    assert found.lost_points == pytest.approx(1.2)
    assert found.warning() is None
    found = Retention(data="frames", max_depth_m=10.0, base=kept(953, 0.05), finetuned=kept(932, 0.0625))
    assert "general ordering 95.3 -> 93.2 %; AbsRel after alignment 0.0500 -> 0.0625 (" in str(found)
    assert "1000 pairs of points up to 10 m in 2 images" in str(found)
    sentence = found.warning()
    assert sentence is not None and "fell by 2.1 points on frames, more than 2" in sentence
    gained = Retention(data="frames", max_depth_m=10.0, base=kept(932), finetuned=kept(953))
    assert gained.warning() is None
    assert gained.to_mapping()["lost_points"] == pytest.approx(-2.1)
    assert gained.to_mapping()["base"]["ordering"]["right"] == 932
