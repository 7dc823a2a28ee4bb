"""Weights out of this program: written aside, reloaded, compared, and only then given their name."""

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
from finetune.export.test_image import default_test_image
from finetune.utils import registry
from finetune.utils.errors import FinetuneError, ResultError
from finetune.utils.files import explain_write_errors, move_into_place, remove, sync
from finetune.utils.paths import is_file, is_folder, is_link, make_folder, path_exists
from finetune.utils.signals import Interrupted

if TYPE_CHECKING:
    from finetune.inference.predictor import Predictor

HALF_LIMIT = 0.02  # share of the spread
# Of the hidden folder that an export is written in, and the file there whose lock says that its process lives.
PREFIX, _LOCK = ".export-", "lock"
_LEFT_FOR_GOOD_S = 24 * 3600.0


def export_model(
    predictor: Predictor,
    to: str,
    output: Path,
    image: NDArray[np.uint8] | None = None,
    force: bool = False,
    half: bool = False,
    dynamic: bool = False,
) -> Comparison:
    """
    Write a model in another format, and hold what comes back from the disk against it.

    Args:
        predictor: the model.
        to: a key of ``registry.EXPORTERS``.
        output: the file, or the folder where the format is one; its folder is made.
        image: (H, W, 3) uint8 RGB to compare on, of the size that the format is made for, where it is made for one;
            without it ``usual_image()``.
        force: replace what is there.
        half: store float16; the comparison then says what that costs.
        dynamic: for inputs of any size; ``onnx`` alone.

    Returns:
        The comparison, which is within the limit.

    Raises:
        ResultError: the answers differ, or cannot be compared; nothing was written.
        FinetuneError: there is no such format, it cannot hold this model, or the output cannot be written there.
    """
    image = default_test_image() if image is None else image
    exporter = make_exporter(to, output, force, image_size=(image.shape[0], image.shape[1]), half=half, dynamic=dynamic)
    exporter.require_writable(predictor.max_depth_m)
    with explain_write_errors(output), _aside(_nearest_folder(output)) as aside:
        written = Path(aside, "written", output.name)
        written.parent.mkdir()
        exporter.write(predictor, written)
        _give_usual_modes(written.parent)
        comparison = _compared(predictor, exporter.read(written, str(predictor.device)), image, output, to, exporter)
        comparison = replace(comparison, notes=tuple(exporter.conclude(predictor, written, image, comparison)))
        _give_usual_modes(written.parent)
        make_folder(output.parent)
        _take_places(exporter.targets(written), exporter.targets(output), Path(aside, "before"))
    return comparison


def _take_places(sources: Sequence[Path], targets: Sequence[Path], aside: Path) -> None:
    """Give what was written its names, all of them or none: what stood there is set aside, and comes back if a signal
    or the disk ends it half way."""
    for source in sources:
        # Before anything is moved, since it can take seconds.
        sync(source)
    aside.mkdir()
    try:
        # Not replaced one by one: old weights must not stand beside a new description.
        for target in targets:
            if path_exists(target):
                target.replace(aside / target.name)
        for source, target in zip(sources, targets, strict=True):
            move_into_place(source, target)
    except BaseException:
        for source, target in zip(sources, targets, strict=True):
            if not path_exists(source):
                remove(target)
            if path_exists(aside / target.name):
                (aside / target.name).replace(target)
        raise


def make_exporter(
    to: str,
    output: Path,
    force: bool,
    *,
    image_size: tuple[int, int] = (480, 640),
    half: bool = False,
    dynamic: bool = False,
) -> Exporter:
    """
    Returns:
        The exporter of a format, when it may write there.

    Raises:
        FinetuneError: there is no such format, the name is not one of its files, or something is there already.
    """
    if to not in registry.EXPORTERS:
        raise FinetuneError(f"{to} is not a format to export to; expected one of {', '.join(registry.EXPORTERS)}.")
    if dynamic and to != "onnx":
        raise FinetuneError(f"format {to} takes images of any size as it is; --dynamic is for onnx. Leave it out.")
    exporter: Exporter = registry.find(registry.EXPORTERS, to)(image_size=image_size, half=half, dynamic=dynamic)
    if exporter.suffix and (output.suffix != exporter.suffix or is_folder(output)):
        example = output / f"model{exporter.suffix}" if is_folder(output) else Path(f"{output}{exporter.suffix}")
        raise FinetuneError(
            f"{output}: format {to} is a file whose name ends in {exporter.suffix}. Write --output {example}."
        )
    standing = [str(target) for target in exporter.targets(output) if path_exists(target)]
    if standing and not force:
        raise FinetuneError(f"{' and '.join(standing)}: already there. Name another --output, or replace with --force.")
    return exporter


def _compared(
    predictor: Predictor, reloaded: PredictImage, image: NDArray[np.uint8], output: Path, to: str, exporter: Exporter
) -> Comparison:
    """
    Raises:
        ResultError: beyond the limit, or an answer that says nothing.
    """
    own = predictor.predict(image).astype(np.float64)
    spread = float(own.max() - own.min())
    if not spread > 0:
        raise ResultError(
            f"{predictor.source}: it answers {own.flat[0]:g} at every pixel of the image, so a comparison would prove "
            "nothing and nothing was exported. Compare on another --image, or train it."
        )
    other = reloaded(image)
    assert other.shape == own.shape
    difference = np.abs(other - own)
    toward = own if predictor.kind == "metric" else -own
    near = toward <= np.median(toward)
    comparison = Comparison(
        output=output,
        to=to,
        image_size=own.shape[:2],
        largest=float(difference.max()),
        mean=float(difference.mean()),
        near=_largest_and_mean(difference[near]),
        far=_largest_and_mean(difference[~near]),
        spread=spread,
        # In half precision every weight is off by up to 5e-4 of itself, so only what is broken can be told from it.
        limit=max(exporter.limit, HALF_LIMIT) if exporter.half else exporter.limit,
        unit="m" if predictor.kind == "metric" else "inverse depth",
        stored_as="float16" if exporter.half else "float32",
    )
    if not comparison.acceptable:
        raise ResultError(
            f"{comparison}. It was not kept: what comes out is not what went in. Report it with this line."
        )
    return comparison


def _largest_and_mean(difference: NDArray[np.float64]) -> tuple[float, float]:
    """0 of no pixel: where half of the image or more has one depth, nothing is farther than the median."""
    return (float(difference.max()), float(difference.mean())) if difference.size else (0.0, 0.0)


@contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    """A hidden folder in ``folder``, gone at the end; after a kill that nothing can answer, with the next export."""
    _sweep(folder)
    with (
        _ends_by_sigterm(),
        tempfile.TemporaryDirectory(dir=folder, prefix=PREFIX, ignore_cleanup_errors=True) as name,
        Path(name, _LOCK).open("w") as lock,
    ):
        _lock(lock)
        yield Path(name)


def _sweep(folder: Path) -> None:
    """Remove what exports left that were killed: what no process holds the lock of any more."""
    for left in folder.glob(f"{PREFIX}*"):
        # One that cannot be looked at, such as another user's, stays.
        with suppress(OSError):
            if is_link(left) or not is_folder(left):
                continue
            lock = left / _LOCK
            if not is_file(lock):
                # Being made just now, or left by a program that made no locks.
                if time.time() - left.stat().st_mtime > _LEFT_FOR_GOOD_S:
                    shutil.rmtree(left)
                continue
            with lock.open("r") as file:
                if _lock(file):
                    shutil.rmtree(left)


def _lock(file: IO[str]) -> bool:
    """Whether this process has the lock of a file now; where there are no locks, never."""
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
def _ends_by_sigterm() -> Iterator[None]:
    """While something lies aside, SIGTERM ends the process by an exception, unless somebody else handles it."""
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


def _give_usual_modes(folder: Path) -> None:
    """All that is in a folder gets the mode that the umask asks for: libraries make files for their user alone."""
    for parent, folders, files in os.walk(folder):
        probe = Path(parent, f".mode{len(files)}")
        probe.touch()
        of_files = stat.S_IMODE(probe.stat().st_mode)
        probe.unlink()
        for name in files:
            Path(parent, name).chmod(of_files)
        for name in folders:
            # Who may read a file of it may enter the folder.
            Path(parent, name).chmod(of_files | (of_files & 0o444) >> 2)


def _nearest_folder(output: Path) -> Path:
    """Where the output's folder is or will be: a rename is whole or nothing only within one file system."""
    return next(parent for parent in output.absolute().parents if path_exists(parent))
