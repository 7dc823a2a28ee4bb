"""Sparse depth made denser: filled with what a relative model sees between measured points that agree."""

from __future__ import annotations

import argparse
from contextlib import suppress
from typing import TYPE_CHECKING

from finetune.models.encoder_specs import MAX_SIDE_PX, PATCH, VERSIONS
from finetune.prepare.kinds import pairs
from finetune.utils.errors import DataError, FinetuneError
from finetune.utils.indices import evenly_spread
from finetune.utils.number_arguments import height_and_width, number

if TYPE_CHECKING:
    from finetune.prepare.recording import FrameSource

_LOOKED_AT = 3  # frames


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare MODEL, what ``pairs`` takes, and when a frame is filled."""
    parser.add_argument("model", metavar="MODEL", help="a relative model: a run folder, a weights file, or a hub id")
    pairs.add_arguments(parser)
    group = parser.add_argument_group("filling")
    group.add_argument(
        "--agree-within",
        type=number("a share between 0 and 1, such as 0.1", lambda found: 0 < found < 1),
        default=0.1,
        metavar="SHARE",
        help="how much the scales may differ that near measured points ask for; default: 0.1",
    )
    group.add_argument(
        "--min-inliers",
        type=number("a share between 0 and 1, such as 0.1", lambda found: 0 < found < 1),
        default=0.5,
        metavar="SHARE",
        help="a frame is left as it is where fewer of its points agree with the model and each other; default: 0.5",
    )
    group.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the model runs")
    group.add_argument(
        "--version", choices=("auto", *VERSIONS), default="auto", help="of an official .pth of Depth Anything"
    )
    group.add_argument(
        "--input-size",
        type=height_and_width(PATCH, MAX_SIDE_PX),
        metavar="HEIGHTxWIDTH",
        help="that such a .pth was trained at; default: 518x518",
    )


def open_source(arguments: argparse.Namespace) -> FrameSource:
    """
    List the frames and load the model.

    Raises:
        FinetuneError: see ``pairs``; or there is no such model, or it is metric.
    """
    from finetune.prepare.prepared_folder import is_prepared, open_prepared

    prepared = [source for source in arguments.source if is_prepared(source)]
    if prepared and len(arguments.source) > 1:
        raise FinetuneError(f"{prepared[0]}: was written by finetune prepare. Name it alone, without other sources.")
    inner = open_prepared(prepared[0]) if prepared else pairs.open_source(arguments)
    _require_meters(inner)
    # Only now the imports that take seconds: a wrong call has been refused.
    from finetune.inference.anchoring import AnchoringOptions
    from finetune.prepare.completion import CompletedFrames, ModelChoice, load_relative_model

    model = ModelChoice(
        source=arguments.model,
        version=arguments.version,
        input_size=arguments.input_size,
        device=arguments.device,
    )
    predictor = load_relative_model(model)
    what = f"filled by {predictor.source} where near measured points agree within {arguments.agree_within:.0%}"
    validated = "confidence is 255 where it was measured, and val counts only that"
    return CompletedFrames(
        inner=inner,
        model=model,
        options=AnchoringOptions(tolerance=arguments.agree_within, min_inlier_share=arguments.min_inliers),
        lines=[*predictor.notes, f"depth is {what}; {validated}"],
    )


def _require_meters(source: FrameSource) -> None:
    """
    Raises:
        DataError: the numbers of depth, in a few frames, are no meters.
    """
    import numpy as np

    from finetune.prepare.recording import FrameLeftOut
    from finetune.prepare.rig_checks import require_meters

    found = []
    for index in evenly_spread(len(source.keys), _LOOKED_AT):
        with suppress(DataError, FrameLeftOut):  # a frame that cannot be read is named when its turn comes
            frame = source.load_frame(index)
            if frame is not None:
                found.append(frame.depth_m[frame.depth_m > 0])
    depths_m = np.concatenate(found) if found else np.empty(0)
    if depths_m.size:
        require_meters(depths_m)
