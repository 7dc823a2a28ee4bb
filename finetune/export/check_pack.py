"""The check pack: with it one finds out on a device whether its engine predicts what the exported model did here.

``NAME.check/`` holds ``check_engine.py``, which runs without this package, and ``check.npz``: three images as the
network gets them, and the prediction for each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finetune.export.check_engine import judge_answer
from finetune.export.options import ExportOptions
from finetune.models.encoder_specs import PATCH
from finetune.utils.errors import ResultError
from finetune.utils.kinds import IN_WORDS
from finetune.utils.paths import is_file

if TYPE_CHECKING:
    from finetune.inference.predictor import Predictor

ENDING = ".check"
DATA_FILE, SCRIPT_FILE = "check.npz", "check_engine.py"
# The largest difference allowed on the device, as a share of the prediction's spread; for the median it is a tenth. By
# default TensorRT rounds float32 to the 10 bits of float16 (TF32), so this is for both.
TOLERANCE = 0.02
# How many times the canonical focal length the images of a canonical model are checked with.
LENSES = (1.0, 1.5, 0.75)
# Sizes in patches of the second and the third image for an export that takes images of any size.
_SIZES = ((8, 8), (13, 9))


@dataclass(frozen=True)
class CheckCase:
    """One answer to check: inputs by their names, as the network gets them, and the prediction that is expected.

    ``expected`` has the shape that the export gives: meters, or inverse depth of a relative model.
    """

    inputs: Mapping[str, NDArray[Any]]
    expected: NDArray[np.float32]


def check_folder(output: Path, suffix: str) -> Path:
    """``NAME.check`` next to an export, which is a file that ends in ``suffix``, or a folder if that is empty."""
    return output.with_name(output.name.removesuffix(suffix) + ENDING)


def choose_check_images(image: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """The image, and two others of its size: frames of ``data/room`` if they are there, else drawn."""
    import cv2

    from finetune.data.readers.files import read_image
    from finetune.export.test_image import draw_dead_leaves

    height, width = image.shape[:2]
    folder = Path(__file__).resolve().parents[2] / "data" / "room" / "color"
    chosen = [image]
    for seed, name in ((1, "0020.jpg"), (2, "0040.jpg")):
        other = read_image(folder / name) if is_file(folder / name) else draw_dead_leaves(height, width, seed)
        chosen.append(np.asarray(cv2.resize(other, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8))
    return chosen


def make_check_cases(predictor: Predictor, image: NDArray[np.uint8], options: ExportOptions) -> list[CheckCase]:
    """
    Args:
        predictor: the model that is exported.
        image: of ``options.image_size``.
        options: of the export. A fixed batch holds the three images in turn; of any batch, one is checked.

    Returns:
        Three cases; of a canonical model with the input ``focal_px``, another lens in each.
    """
    images = choose_check_images(image)
    network_size = predictor.preprocessing.network_size(*options.image_size)
    sizes = [network_size] * len(images)
    if options.dynamic:
        sizes[1:] = [(rows * PATCH, columns * PATCH) for rows, columns in _SIZES]
    count = options.batch if isinstance(options.batch, int) else 1
    cases = []
    for i, size in enumerate(sizes):
        chosen = [images[(i + j) % len(images)] for j in range(count)]
        focal_px = LENSES[i] * predictor.canonical.focal_px if predictor.canonical else None
        cases.append(make_case(predictor, chosen, size, focal_px, options))
    return cases


def make_frame_cases(predictor: Predictor, options: ExportOptions) -> list[CheckCase]:
    """As ``make_check_cases``, for each of ``options.frames``, resized to ``options.image_size``."""
    import cv2

    height, width = options.image_size
    size = predictor.preprocessing.network_size(height, width)
    focal_px = predictor.canonical.focal_px if predictor.canonical else None
    count = options.batch if isinstance(options.batch, int) else 1
    cases = []
    for frame in options.frames:
        image = np.asarray(cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        cases.append(make_case(predictor, [image] * count, size, focal_px, options))
    return cases


def make_case(
    predictor: Predictor,
    images: Sequence[NDArray[np.uint8]],
    size: tuple[int, int],
    focal_px: float | None,
    options: ExportOptions,
) -> CheckCase:
    """``size``: of the network's input; ``focal_px``: at that size."""
    import cv2
    import torch

    inputs: dict[str, NDArray[Any]]
    if options.resize:
        expected = np.stack([predictor.predict_at(image, focal_px)[None] for image in images])
        inputs = {"image": np.stack(images)}
    else:
        prepare = predictor.preprocessing
        if options.input_type == "uint8" or size != prepare.network_size(*options.image_size):
            images = [np.asarray(cv2.resize(i, size[::-1], interpolation=cv2.INTER_AREA), np.uint8) for i in images]
            prepare = replace(prepare, input_size=size)
        pixels = np.stack([prepare(image) for image in images])
        expected = predictor(torch.from_numpy(pixels), focal_px).cpu().numpy()
        inputs = {"image": np.stack(images) if options.input_type == "uint8" else pixels}
    if focal_px is not None:
        scale = sum(side / full for side, full in zip(size, options.image_size, strict=True)) / 2
        inputs["focal_px"] = np.full(len(images), focal_px / scale if options.resize else focal_px, np.float32)
    return CheckCase(inputs, expected)


def write_check_pack(
    folder: Path,
    cases: Sequence[CheckCase],
    predictor: Predictor,
    *,
    model: str,
    precision: str,
    input_type: str,
    tolerance: float = TOLERANCE,
) -> None:
    """
    Args:
        folder: ``check_folder`` of the export; it is made.
        cases: what is checked; inputs of the same names in each.
        predictor: the model that was exported.
        model: the name of the export, for sentences.
        precision: in which the export computes, for sentences.
        input_type: ``float32`` (normalized, (B, 3, H, W)) or ``uint8`` ((B, H, W, 3)).
        tolerance: the largest difference allowed, as a share of the prediction's spread.
    """
    is_metric, is_canonical = predictor.kind == "metric", predictor.canonical is not None
    scaled = "is its max depth another one?" if is_metric else "is it another model?"
    about = {
        "model": model,
        "precision": precision,
        "kind": predictor.kind,
        "unit": "m" if is_metric else f"of {IN_WORDS[predictor.kind]}",
        "max_depth_m": None if is_canonical else predictor.max_depth_m,
        "if_scaled": "is its max depth another one, or focal_px not used?" if is_canonical else scaled,
        "if_inverted": "depth was taken for inverse depth"
        if predictor.kind == "relative"
        else "inverse depth was taken for depth",
        "tolerance": tolerance,
        "input": input_type,
        "mean": list(predictor.preprocessing.mean),
        "std": list(predictor.preprocessing.std),
        "images": len(cases),
        "inputs": list(cases[0].inputs),
        "sizes": [list(case.inputs["image"].shape) for case in cases],
    }
    arrays: dict[str, NDArray[Any]] = {"about": np.array(json.dumps(about))}
    for i, case in enumerate(cases):
        arrays |= {f"{name}_{i}": array for name, array in case.inputs.items()}
        arrays[f"expected_{i}"] = case.expected
    folder.mkdir()
    np.savez_compressed(folder / DATA_FILE, **arrays)  # type: ignore[arg-type]  # its stub has another keyword
    script = Path(__file__).with_name(SCRIPT_FILE).read_text(encoding="utf-8")
    (folder / SCRIPT_FILE).write_text(script, encoding="utf-8")


def read_check_inputs(folder: Path) -> list[dict[str, NDArray[Any]]]:
    """The inputs of each case of a check pack, by their names."""
    with np.load(folder / DATA_FILE) as pack:
        about = json.loads(str(pack["about"]))
        return [{name: pack[f"{name}_{i}"] for name in about["inputs"]} for i in range(about["images"])]


def require_right(folder: Path, answers: Sequence[NDArray[Any]], output: Path, precision: str = "float32") -> None:
    """
    Judge the answers of the export itself as ``check_engine.py`` will on the device.

    Args:
        folder: the check pack.
        answers: of the export, one for each case.
        output: the export, for the error.
        precision: of the export. In float16 a max depth is rounded, and all depth with it, by up to 0.05 %: where a
            model predicts a narrow range, that is too much.

    Raises:
        ResultError: the pack would call the export itself wrong.
    """
    with np.load(folder / DATA_FILE) as pack:
        about = json.loads(str(pack["about"]))
        for i, answer in enumerate(answers):
            words, fault = judge_answer(answer, pack[f"expected_{i}"], about)
            if fault:
                fixes = {"float16": "export it with --precision mixed", "mixed": "export it with --precision float32"}
                raise ResultError(
                    f"{output}: on image {i + 1} of its check pack it is wrong: {fault} ({words}). It was not kept; "
                    f"{fixes.get(precision, 'report it with this line')}."
                )
