"""Run an exported file by NumPy, OpenCV and a runtime, without torch; ``finetune.runtime`` is its public name.

What it imports must not import torch: a test holds that.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from finetune.data.preprocessing import Preprocessing
from finetune.inference.image_input import CameraLike, ImageLike, find_focal_px, to_network_image
from finetune.inference.input_form import InputForm
from finetune.models.training_camera import TrainingCamera
from finetune.utils.errors import CheckpointError, FinetuneError, first_line
from finetune.utils.kinds import Activation, Kind
from finetune.utils.paths import is_file, is_folder, missing

IMAGE, FOCAL = "image", "focal_px"
# What finetune export --to openvino writes into its folder, and the section of the file that holds our metadata.
OPENVINO_FILE, OPENVINO_SECTION = "model.xml", "finetune"
_NETWORK_SUFFIXES = (".onnx", ".xml")
# Without it OpenVINO computes in bfloat16 where a processor can: off by 1 % of depth at the 99.9th percentile.
PRECISION_HINT = "INFERENCE_PRECISION_HINT"
_TELEMETRY = "openvino_telemetry"


class Engine(Protocol):
    """A file that a runtime has loaded.

    Attributes:
        metadata: what the export wrote into the file.
        description: the runtime, and the precision in which it computes where that is not the file's.
    """

    metadata: Mapping[str, Any]
    description: str

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float32]:
        """The one output, for the inputs by name."""
        ...


@dataclass(frozen=True, kw_only=True)
class ExportedLenses:
    """What an exported file says about the lenses of the training.

    Attributes:
        camera: the canonical camera; None for a file that needs none.
        max_depth_m: of the head, meters; None for a relative model.
        activation: of the head.
    """

    camera: TrainingCamera | None
    max_depth_m: float | None
    activation: Activation

    @property
    def end_m(self) -> float | None:
        """The largest depth that it can predict, meters; None where there is no end."""
        return self.max_depth_m if self.activation == "sigmoid" else None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ExportedModel:
    """An exported file with its preprocessing; it predicts as the model does that it was exported from.

    Attributes:
        engine: runs the network.
        source: the path of the file.
        kind: ``metric`` (predicts meters), ``relative`` (predicts inverse depth without a unit; larger is nearer), or
            ``relative_depth`` (predicts depth without a unit; larger is farther).
        preprocessing: turns an image into the network's input.
        network: the lenses of the training.
        form: how the file takes images, and of which size.
    """

    engine: Engine
    source: str
    kind: Kind
    preprocessing: Preprocessing
    network: ExportedLenses
    form: InputForm

    @property
    def input_size(self) -> tuple[int, int] | None:
        """(height, width) in pixels of the only images that the network sees; None: any multiples of 14."""
        return self.form.input_size

    def __repr__(self) -> str:
        """One line."""
        depth = "" if self.max_depth_m is None else f", max_depth_m={self.max_depth_m:g}"
        size = "any size" if self.input_size is None else f"input_size={_format_size(self.input_size)}"
        return f"ExportedModel({self.source!r}, {self.kind}{depth}, {size}, {self.engine.description})"

    @property
    def max_depth_m(self) -> float | None:
        """The max depth of a metric model, which ends there unless its head is exponential; None for others."""
        return self.network.max_depth_m

    @property
    def canonical(self) -> TrainingCamera | None:
        """The canonical camera of a file that needs the camera of an image to predict its meters; None for others."""
        return self.network.camera

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the export wrote into the file."""
        return self.engine.metadata

    def predict(self, image: ImageLike, *, camera: CameraLike | None = None, flip: bool = False) -> NDArray[np.float32]:
        """
        Args:
            image: (H, W, 3) uint8, RGB; or the path of an image file, or a PIL image, both turned upright as their
                EXIF tag says. OpenCV reads BGR, which cannot be detected: convert it with ``image[..., ::-1]``.
            camera: of the image, for a canonical model: fx, fy, cx, cy in pixels, a ``Camera``, or ``"training"``,
                which assumes that of the training and warns. None: of a file, the EXIF data's, if Pillow is installed.
            flip: average with the prediction for the mirrored image, mirrored back. This takes twice the time.

        Returns:
            (H, W): meters along the optical axis for a metric model, inverse depth >= 0 for a relative one, and depth
            without a unit for one of relative depth.

        Raises:
            ValueError: the image is none of these, or the model is canonical and no camera is known.
            DataError: there is no such file, or it is no image.
            FinetuneError: the camera cannot be that of the image, or the file is for images of another shape.
        """
        found = to_network_image(image, self.preprocessing)
        focal_px = None
        if self.canonical:
            file = image if isinstance(image, str | os.PathLike) else None
            focal_px = find_focal_px(self, found.size, camera, file)
        return self.predict_at(found.pixels, focal_px, flip=flip, size=found.size)

    def predict_at(
        self,
        image: NDArray[np.uint8],
        focal_px: float | None = None,
        *,
        flip: bool = False,
        size: tuple[int, ...] | None = None,
    ) -> NDArray[np.float32]:
        """As ``predict``, for a focal length at the network's size, pixels; None for a model that needs none. ``size``
        is the height and width of the file of an image that was reduced as it was decoded."""
        height, width = size or image.shape[:2]
        size = height, width
        pixels = self.form.prepare(image, self.preprocessing, size=size)
        if focal_px is not None:
            focal_px = self.form.focal_px(focal_px, size, self.preprocessing.network_size(*size))
        prediction = resize_bilinear(self.run(pixels, focal_px)[0, 0], size)
        if not flip:
            return prediction
        mirrored = self.run(self.form.mirror(pixels), focal_px)
        return (prediction + resize_bilinear(mirrored[0, 0], size)[:, ::-1]) / np.float32(2)

    def run(self, pixels: NDArray[Any], focal_px: float | None = None) -> NDArray[np.float32]:
        """
        Args:
            pixels: (B, 3, H, W), normalized, as ``preprocessing`` gives them; (B, H, W, 3) uint8 RGB for a file that
                takes these. B is what the file takes at a time; one is repeated for a file that takes several.
            focal_px: (fx + fy) / 2 of the camera at H x W, pixels; for a canonical model.

        Returns:
            (B, 1, H, W), in the unit of ``predict``; one for each that is given.

        Raises:
            FinetuneError: the file is for another size, number or type of images.
        """
        pixels = np.asarray(pixels)
        self.form.require_pixels(pixels, self.source)
        batch = self.form.fill_batch(np.asarray(pixels, np.uint8 if self.form.is_uint8 else np.float32))
        inputs: dict[str, NDArray[np.generic]] = {IMAGE: batch}
        if self.canonical:
            if focal_px is None:
                raise FinetuneError(f"{self.source} needs focal_px, (fx + fy) / 2 at the size of the input. Give it.")
            inputs[FOCAL] = np.full(len(batch), focal_px, np.float32)
        return self.engine.run(inputs)[: len(pixels)]


def is_exported(source: str | os.PathLike[str]) -> bool:
    """Whether ``load`` reads it: an ``.onnx`` file, or a folder of OpenVINO or the ``.xml`` in it, that exists."""
    path = Path(source)
    return is_file(path / OPENVINO_FILE) or (is_file(path) and path.suffix.lower() in _NETWORK_SUFFIXES)


def load(source: str | os.PathLike[str], *, threads: int | None = None) -> ExportedModel:
    """
    Args:
        source: an ``.onnx`` file that ``finetune export --to onnx`` wrote, or the folder with ``model.xml`` that
            ``--to openvino`` wrote.
        threads: of the CPU; None: as many as the runtime takes.

    Returns:
        A model with ``.predict(image)``.

    Raises:
        CheckpointError: the file is missing, damaged, or was not written by ``finetune export``.
        FinetuneError: the runtime that it needs is not installed.
    """
    path = Path(source)
    if not (is_file(path) or is_folder(path)):
        raise CheckpointError(source, missing(path), "Name what finetune export --to onnx or openvino wrote")
    network = path / OPENVINO_FILE if is_folder(path) else path
    if not is_file(network) or network.suffix.lower() not in _NETWORK_SUFFIXES:
        raise CheckpointError(
            source,
            f"is no .onnx file and no folder with {OPENVINO_FILE}",
            "Export it with finetune export --to onnx or openvino; finetune.load_model reads other formats",
        )
    engine = OnnxEngine(network, threads) if network.suffix.lower() == ".onnx" else OpenVinoEngine(network, threads)
    return _describe(engine, str(source))


def _describe(engine: Engine, source: str) -> ExportedModel:
    """
    Raises:
        CheckpointError: the metadata is not what our export writes.
    """
    metadata = engine.metadata
    try:
        camera, kind = metadata.get("camera"), metadata["kind"]
        if kind not in get_args(Kind):
            raise ValueError(f"kind is {kind!r}")
        # Files from before there was a choice do not say it.
        activation = metadata.get("activation", "sigmoid" if kind == "metric" else "relu")
        if activation not in get_args(Activation):
            raise ValueError(f"activation is {activation!r}")
        return ExportedModel(
            engine=engine,
            source=source,
            kind=kind,
            preprocessing=Preprocessing.from_mapping(metadata["preprocessing"]),
            network=ExportedLenses(
                camera=None if camera is None else TrainingCamera.from_mapping(camera),
                max_depth_m=float(metadata["max_depth_m"]) if kind == "metric" else None,
                activation=activation,
            ),
            form=InputForm.from_metadata(metadata),
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise CheckpointError(
            source, f"does not say how images are prepared for it ({first_line(error)})", "Export it again"
        ) from error


class OnnxEngine:
    """An ``.onnx`` file in onnxruntime, on the CPU, in the precision of the file."""

    description = "onnxruntime"

    def __init__(self, path: Path, threads: int | None = None) -> None:
        """
        Raises:
            CheckpointError: onnxruntime cannot load the file.
            FinetuneError: onnxruntime is not installed.
        """
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors; it warns of every constant it folds
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors share no class but this one
            raise CheckpointError(
                path, f"onnxruntime cannot load it ({first_line(error)})", "Export it again, or copy it again"
            ) from error
        self.metadata: Mapping[str, Any] = parse_metadata(self._session.get_modelmeta().custom_metadata_map)

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float32]:
        """The one output, for the inputs by name."""
        (prediction,) = self._session.run(None, dict(inputs))
        return np.asarray(prediction, dtype=np.float32)


class OpenVinoEngine:
    """A ``model.xml`` in OpenVINO, on the CPU, in float32."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        """
        Raises:
            CheckpointError: OpenVINO cannot load the file.
            FinetuneError: OpenVINO is not installed.
        """
        openvino = import_openvino()
        wanted: dict[str, object] = {PRECISION_HINT: "f32"}
        if threads is not None:
            wanted["INFERENCE_NUM_THREADS"] = threads
        try:
            core = openvino.Core()
            model = core.read_model(path)
            self._compiled = core.compile_model(model, "CPU", wanted)
        except RuntimeError as error:
            raise CheckpointError(
                path, f"OpenVINO cannot load it ({_last_line(error)})", "Export it again, or copy it again"
            ) from error
        self.description = f"openvino, {PRECISION_HINT} {self._compiled.get_property(PRECISION_HINT).to_string()}"
        self.metadata: Mapping[str, Any] = {}
        with suppress(RuntimeError):  # another program wrote the file
            self.metadata = parse_metadata(model.get_rt_info([OPENVINO_SECTION]).value)

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float32]:
        """The one output, for the inputs by name."""
        return np.array(self._compiled(dict(inputs))[0], dtype=np.float32)


def _last_line(error: RuntimeError) -> str:
    """Of an error of OpenVINO, whose first lines name its own source files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(". ") if lines else "RuntimeError"


def parse_metadata(texts: Mapping[str, str]) -> dict[str, Any]:
    """Each value from JSON; a value that is none, which another program wrote, stays a text."""
    found: dict[str, Any] = {}
    for name, text in texts.items():
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


def import_onnxruntime() -> ModuleType:
    """
    Import onnxruntime without telemetry, which it would otherwise start on import.

    Raises:
        FinetuneError: it is not installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError:
        raise FinetuneError("onnxruntime is not installed. Install it: pip install onnxruntime.") from None
    onnxruntime.disable_telemetry_events()
    return onnxruntime


def import_openvino() -> ModuleType:
    """
    Import OpenVINO without the package by which its tools report to their maker.

    Raises:
        FinetuneError: it is not installed.
    """
    with without_telemetry():
        try:
            import openvino
        except ImportError:
            raise FinetuneError("openvino is not installed. Install it: pip install openvino.") from None
    return openvino


@contextmanager
def without_telemetry() -> Iterator[None]:
    """While this lasts, the package by which OpenVINO and NNCF report to their maker is as if it were not installed."""
    present = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[_TELEMETRY]
        if present is not None:
            sys.modules[_TELEMETRY] = present


def resize_bilinear(prediction: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """
    (h, w) -> (height, width): as ``models.resizing.resize_prediction`` does it, whose corners stay in place.

    cv2.resize keeps pixel edges in place instead of corners, and cv2.remap rounds positions to 1/32 pixel.
    """
    for axis, side in enumerate(size):
        count = prediction.shape[axis]
        # float32, as in PyTorch: at 2,000 pixels its positions are 1e-4 pixels off those in float64.
        position = np.arange(side, dtype=np.float32) * np.float32((count - 1) / max(side - 1, 1))
        below = np.minimum(position.astype(np.intp), count - 1)
        share = position - below.astype(np.float32)
        if axis == 0:
            share = share[:, None]
        low, high = (np.take(prediction, rows, axis) for rows in (below, np.minimum(below + 1, count - 1)))
        prediction = low + (high - low) * share
    return prediction


def _format_size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
