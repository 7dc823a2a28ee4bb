"""``finetune predict MODEL PATH... --output DIR``: images, and folders of images, to depth."""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    # Run as a file, Python puts this folder first, where evaluate.py would hide a library of that name.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from finetune.console import ended
from finetune.errors import DataError, FinetuneError, ResultError
from finetune.model_argument import add_model_argument, load_from

if TYPE_CHECKING:
    from finetune.predictor import Predictor


def main(argv: Sequence[str] | None = None) -> int:
    """Understand the call, predict; the exit status is that of ``console.ended``."""
    parser = argparse.ArgumentParser(
        prog="finetune predict",
        description="Images to depth: <name>.npy in meters (float32), <name>.png in millimeters (16 bit), "
        "<name>_preview.png in color. A relative model knows no meters: <name>_inverse.npy and the preview.",
    )
    add_model_argument(parser)
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="an image, or a folder of images")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="the folder to write into")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU if there is one")
    arguments = parser.parse_args(argv)
    return ended(lambda: _predict(arguments), "Images that are done stay; call again for the others.")


def _predict(arguments: argparse.Namespace) -> None:
    images = found_images(arguments.paths, arguments.output)
    try:
        arguments.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FinetuneError(
            f"{arguments.output}: is no folder to write into ({error.strerror}). Name another --output."
        ) from error
    # Only now what takes seconds to import: a wrong call has been answered.
    from tqdm import tqdm

    from finetune.depth_files import MOST_M

    predictor = load_from(arguments, arguments.device)
    if predictor.kind == "relative":
        print(f"{arguments.model} is relative: inverse depth without a unit, no meters and no millimeter PNG")
    faults, beyond = [], []
    # On no terminal a bar is one long line.
    for image in tqdm(images, unit="image", dynamic_ncols=True, disable=None):
        try:
            if not _predict_one(predictor, image, arguments.output):
                beyond.append(image)
        except (DataError, ResultError) as error:
            faults.append(str(error))
    print(f"{arguments.output}: {len(images) - len(faults)} of {len(images)} images done")
    if beyond:
        faults.append(
            f"{len(beyond)} of {len(images)} images, {beyond[0]} first, reach beyond {MOST_M} m, the most that 16 bits "
            "of millimeters hold: they have no .png. Use their .npy, which is in meters."
        )
    if faults:
        raise ResultError("\n".join(faults))


def found_images(paths: Sequence[Path], output: Path) -> list[Path]:
    """
    Args:
        paths: images, and folders of which all images are taken, but not those of folders within.
        output: the folder that answers go to.

    Returns:
        Every image once, folders sorted by name.

    Raises:
        FinetuneError: a path does not exist, there is no image, or a file would be written over another.
    """
    from finetune.readers.files import IMAGE_SUFFIXES

    # In a folder, an array is more likely an answer than an image.
    suffixes = tuple(suffix for suffix in IMAGE_SUFFIXES if suffix not in (".npy", ".npz"))
    images: dict[Path, Path] = {}
    for path in paths:
        if path.is_dir():
            if path.resolve() == output.resolve():
                raise FinetuneError(f"{output}: is read from and written to. Name another folder with --output.")
            in_folder = sorted(p for p in path.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith("."))
            images |= {image.resolve(): image for image in in_folder}
        elif path.exists():
            images[path.resolve()] = path
        else:
            raise FinetuneError(f"{path}: no such file or folder. Name images, or folders that hold them.")
    if not images:
        raise FinetuneError(
            f"{', '.join(map(str, paths))}: no image in there. Name a folder that holds some itself "
            f"({', '.join(suffixes)}), or the images."
        )
    _require_own_targets(list(images.values()), output)
    return list(images.values())


def _require_own_targets(images: Sequence[Path], output: Path) -> None:
    """
    Raises:
        FinetuneError: two images would be written to one file, or an image would be written over.
    """
    inputs = {image.resolve() for image in images}
    writers: dict[Path, Path] = {}
    for image in images:
        for ending in (".npy", ".png", "_preview.png", "_inverse.npy"):
            target = output / f"{image.stem}{ending}"
            if target.resolve() in inputs:
                raise FinetuneError(f"{target}: is an image to read and a file to write. Name another --output.")
            if target in writers:
                raise FinetuneError(
                    f"{writers[target]} and {image} would both be written to {target}. "
                    "Call once for each of them, with an --output of its own."
                )
            writers[target] = image


def _predict_one(predictor: Predictor, path: Path, output: Path) -> bool:
    """
    Returns:
        Whether all files of the image were written; False when a depth is beyond what the 16-bit PNG holds.

    Raises:
        DataError: the image cannot be read.
        ResultError: it has no answer.
        FinetuneError: nothing can be written there.
    """
    import numpy as np

    from finetune.depth_files import write_inverse, write_meters
    from finetune.readers.files import read_image

    image = read_image(path, upright=True)
    try:
        answer = predictor.predict(image)
    except (MemoryError, RuntimeError) as error:
        # PyTorch has no class of its own for memory that a CPU lacks.
        if not any(words in str(error) for words in ("can't allocate memory", "out of memory")):
            raise
        height, width = predictor.preprocessing.network_size(*image.shape[:2])
        raise ResultError(f"{path}: memory ran out at {height}x{width}. Crop it to a less elongated image.") from error
    if not np.isfinite(answer).all():
        raise ResultError(f"{path}: the answer is not a number everywhere. The weights are damaged; export them again.")
    if predictor.max_depth_m is None:
        write_inverse(answer, output / path.stem)
        return True
    return write_meters(answer, predictor.max_depth_m, output / path.stem)


if __name__ == "__main__":
    sys.exit(main())
