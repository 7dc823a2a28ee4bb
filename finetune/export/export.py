"""Export weights: write them to a hidden folder, reload and compare them, and only then give them their name."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finetune.export.base import Exporter, PredictImage
from finetune.export.comparison import Comparison
from finetune.export.folding import fold_camera
from finetune.export.options import DEFAULTS, OPTIONS_OF_FORMATS, ExportOptions
from finetune.export.test_image import default_test_image
from finetune.utils import registry
from finetune.utils.errors import FinetuneError, ResultError
from finetune.utils.files import explain_write_errors, move_into_place, remove, sync
from finetune.utils.kinds import rises_with_distance, unit_of
from finetune.utils.paths import is_file, is_folder, is_link, make_folder, path_exists
from finetune.utils.signals import Interrupted

if TYPE_CHECKING:
    from finetune.inference.predictor import Predictor

# The start of the name of the hidden folder for an export, and the file in it that the exporting process keeps locked.
PREFIX, _LOCK = ".export-", "lock"
_ABANDONED_AFTER_S = 24 * 3600.0


def export_model(
    predictor: Predictor,
    to: str,
    output: Path,
    image: NDArray[np.uint8] | None = None,
    force: bool = False,
    options: ExportOptions = DEFAULTS,
    for_camera_px: float | None = None,
) -> Comparison:
    """
    Write a model in another format, reload it from the disk, and compare the predictions of both.

    Args:
        predictor: the model.
        to: a key of ``registry.EXPORTERS``.
        output: the file or, depending on the format, the folder. Its parent folder is made.
        image: (H, W, 3) uint8 RGB to compare on. A format that is made for one image size is made for this one. The
            default is ``default_test_image()``.
        force: replace an existing file or folder.
        options: what else is asked for. Their ``image_size`` becomes that of ``image``.
        for_camera_px: focal length of a camera whose images have the size of ``image``, pixels: a canonical model is
            written for this camera alone.

    Returns:
        The comparison, which is within the limit.

    Raises:
        ResultError: the predictions differ, or cannot be compared. Nothing was written.
        FinetuneError: there is no such format, it cannot hold this model, or the output cannot be written there.
    """
    image = default_test_image() if image is None else image
    exporter = make_exporter(to, output, force, replace(options, image_size=(image.shape[0], image.shape[1])), image)
    exporter.require_activation(to, predictor.network.activation)
    predictor = _choose_camera(predictor, exporter, to, for_camera_px)
    exporter.require_writable(predictor.max_depth_m)
    with explain_write_errors(output), _hidden_folder(_nearest_folder(output)) as hidden:
        written = Path(hidden, "written", output.name)
        written.parent.mkdir()
        exporter.write(predictor, written)
        _apply_umask(written.parent)
        compared = exporter.choose_compared(predictor, image)
        comparison = _compare(predictor, exporter.read(written, str(predictor.device)), compared, output, to, exporter)
        comparison = replace(comparison, notes=tuple(exporter.conclude(predictor, written, image, comparison)))
        _apply_umask(written.parent)
        make_folder(output.parent)
        _move_into_places(exporter.targets(written), exporter.targets(output), Path(hidden, "before"))
    return comparison


def _choose_camera(predictor: Predictor, exporter: Exporter, to: str, for_camera_px: float | None) -> Predictor:
    """
    The model, for one camera if that is asked for.

    Raises:
        FinetuneError: a camera is needed and none is given, or given and not needed.
    """
    if predictor.canonical is None:
        if for_camera_px is not None:
            raise FinetuneError(
                f"{predictor.source}: --for-camera is for canonical models, and this one is right for the lens of its "
                "training alone. Leave it out."
            )
        return predictor
    if for_camera_px is None and not exporter.holds_camera:
        raise FinetuneError(
            f"{predictor.source} predicts meters only with the camera of an image, which format {to} cannot hold. "
            "Write it for one camera: --for-camera FX, its focal length in pixels, with --image, one of its images; or "
            "export to onnx or openvino, which take the focal length as an input."
        )
    if for_camera_px is None:
        return predictor
    if to == "adapter":
        raise FinetuneError("format adapter keeps the canonical camera. Leave out --for-camera.")
    folded = fold_camera(predictor, for_camera_px, exporter.options.image_size)
    assert folded.max_depth_m is not None
    if to == "huggingface" and not folded.max_depth_m.is_integer():
        raise FinetuneError(
            f"format huggingface: for a camera of {for_camera_px:g} px the max depth is {folded.max_depth_m:.6g} m, "
            "and transformers takes whole meters only. Export to official, onnx or openvino."
        )
    return folded


def _move_into_places(sources: Sequence[Path], targets: Sequence[Path], before: Path) -> None:
    """Move all of what was written to its names, or nothing: earlier files are moved to ``before``, and back again if a
    signal or the disk interrupts."""
    for source in sources:
        # This can take seconds, so it is done before anything is moved.
        sync(source)
    before.mkdir()
    try:
        # All old files leave first: old weights must never be next to a new description.
        for target in targets:
            if path_exists(target):
                target.replace(before / target.name)
        for source, target in zip(sources, targets, strict=True):
            move_into_place(source, target)
    except BaseException:
        for source, target in zip(sources, targets, strict=True):
            if not path_exists(source):
                remove(target)
            if path_exists(before / target.name):
                (before / target.name).replace(target)
        raise


def make_exporter(
    to: str,
    output: Path,
    force: bool,
    options: ExportOptions = DEFAULTS,
    image: NDArray[np.uint8] | None = None,
) -> Exporter:
    """
    Returns:
        The exporter of a format, if it may write there.

    Raises:
        FinetuneError: there is no such format, it has no such option, the name is not one of its files, or something is
            there already.
    """
    if to not in registry.EXPORTERS:
        raise FinetuneError(f"{to} is not an export format; expected one of {', '.join(registry.EXPORTERS)}.")
    require_taken(to, options)
    exporter: Exporter = registry.find(registry.EXPORTERS, to)(options, image)
    if exporter.suffix and (output.suffix != exporter.suffix or is_folder(output)):
        example = output / f"model{exporter.suffix}" if is_folder(output) else Path(f"{output}{exporter.suffix}")
        raise FinetuneError(
            f"{output}: format {to} is a file whose name ends in {exporter.suffix}. Write --output {example}."
        )
    existing = [str(target) for target in exporter.targets(output) if path_exists(target)]
    if existing and not force:
        raise FinetuneError(f"{' and '.join(existing)}: already there. Name another --output, or replace with --force.")
    return exporter


def require_taken(to: str, options: ExportOptions) -> None:
    """
    Args:
        to: a key of ``registry.EXPORTERS``.
        options: what else is asked for.

    Raises:
        FinetuneError: an option means nothing to this format.
    """
    exporter: type[Exporter] = registry.find(registry.EXPORTERS, to)
    if options.precision not in exporter.precisions:
        raise FinetuneError(
            f"format {to} is written in {' or '.join(exporter.precisions)}, not in {options.precision}. Choose another "
            "--precision, or leave it out."
        )
    for name, option in OPTIONS_OF_FORMATS.items():
        if getattr(options, name) != getattr(DEFAULTS, name) and name not in exporter.takes:
            formats = [key for key in registry.EXPORTERS if name in registry.find(registry.EXPORTERS, key).takes]
            takers = " and ".join(formats)
            raise FinetuneError(f"{option} is not for format {to}, but for {takers}. Leave it out.")


def _compare(
    predictor: Predictor, reloaded: PredictImage, image: NDArray[np.uint8], output: Path, to: str, exporter: Exporter
) -> Comparison:
    """
    Raises:
        ResultError: the difference is beyond the limit, or the prediction is constant, which proves nothing.
    """
    canonical_px = predictor.canonical.focal_px if predictor.canonical else None
    own = predictor.predict_at(image, canonical_px).astype(np.float64)
    spread = float(own.max() - own.min())
    if not spread > 0:
        raise ResultError(
            f"{predictor.source}: predicts {own.flat[0]:g} at every pixel of the image, so a comparison would prove "
            "nothing and nothing was exported. Compare on another --image, or train it."
        )
    other = reloaded(image)
    assert other.shape == own.shape
    difference = np.abs(other - own)
    farness = own if rises_with_distance(predictor.kind) else -own
    near = farness <= np.median(farness)
    comparison = Comparison(
        output=output,
        to=to,
        image_size=own.shape[:2],
        largest=float(difference.max()),
        mean=float(difference.mean()),
        near=_largest_and_mean(difference[near]),
        far=_largest_and_mean(difference[~near]),
        spread=spread,
        limit=exporter.allowed,
        unit=unit_of(predictor.kind),
        stored_as=exporter.options.precision,
    )
    if not comparison.acceptable:
        raise ResultError(
            f"{comparison}. It was not kept: the exported model is not the one that went in. Report it with this line."
        )
    return comparison


def _largest_and_mean(difference: NDArray[np.float64]) -> tuple[float, float]:
    """(largest, mean); zeros without pixels: if half of the image has one depth, nothing is farther than the median."""
    return (float(difference.max()), float(difference.mean())) if difference.size else (0.0, 0.0)


@contextmanager
def _hidden_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder in ``folder``, removed at the end. If the process is killed, the next export removes it."""
    _remove_abandoned(folder)
    with (
        _raise_on_sigterm(),
        tempfile.TemporaryDirectory(dir=folder, prefix=PREFIX, ignore_cleanup_errors=True) as name,
        Path(name, _LOCK).open("w") as lock,
    ):
        _try_lock(lock)
        yield Path(name)


def _remove_abandoned(folder: Path) -> None:
    """Remove the hidden folders of killed exports: those whose lock no process holds."""
    for left in folder.glob(f"{PREFIX}*"):
        # A folder that cannot be read, such as another user's, stays.
        with suppress(OSError):
            if is_link(left) or not is_folder(left):
                continue
            lock = left / _LOCK
            if not is_file(lock):
                # It is being made right now, or is of a version that made no locks.
                if time.time() - left.stat().st_mtime > _ABANDONED_AFTER_S:
                    shutil.rmtree(left)
                continue
            with lock.open("r") as file:
                if _try_lock(file):
                    shutil.rmtree(left)


def _try_lock(file: IO[str]) -> bool:
    """Whether this process now holds the lock of a file; always False on systems without locks."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def _raise_on_sigterm() -> Iterator[None]:
    """Make SIGTERM raise, so that the hidden folder is removed, unless the signal already has a handler."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise Interrupted(number)

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _apply_umask(folder: Path) -> None:
    """Give all files in a folder the mode of the umask. Some libraries make files that only their user may read."""
    for parent, folders, files in os.walk(folder):
        probe = Path(parent, f".mode{len(files)}")
        probe.touch()
        of_files = stat.S_IMODE(probe.stat().st_mode)
        probe.unlink()
        for name in files:
            Path(parent, name).chmod(of_files)
        for name in folders:
            # Whoever may read the files may enter the folder.
            Path(parent, name).chmod(of_files | (of_files & 0o444) >> 2)


def _nearest_folder(output: Path) -> Path:
    """The nearest existing parent of the output: a rename is atomic only within one file system."""
    return next(parent for parent in output.absolute().parents if path_exists(parent))
