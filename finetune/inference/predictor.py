"""Load weights in any format, and predict the depth of an image."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.data.camera import Camera, camera_of
from finetune.data.preprocessing import Preprocessing
from finetune.inference.image_input import CameraLike, ImageLike, find_focal_px, to_network_image, warn_of_lens
from finetune.inference.point_cloud import PointCloud, point_cloud
from finetune.models.arithmetic import Precision, autocast_to, without_tf32
from finetune.models.checkpoints.fill import whole_network
from finetune.models.checkpoints.identity import IN_RECIPE, ORIGINAL_INPUT_SIZE, ArgumentNames
from finetune.models.checkpoints.load import Checkpoint, read_checkpoint
from finetune.models.depth_model import DepthModel
from finetune.models.encoder_specs import MAX_SIDE_PX, PATCH, VERSIONS
from finetune.models.resizing import resize_prediction
from finetune.models.training_camera import TrainingCamera
from finetune.utils.errors import CheckpointError, FinetuneError
from finetune.utils.kinds import Kind, KindOption

DEVICES = ("auto", "cpu", "cuda")
_IN_PYTHON = ArgumentNames(
    source="name",
    kind="kind",
    max_depth_m="max_depth_m",
    version="version",
    no_max_depth="Leave max_depth_m out",
    input_size="input_size",
    no_input_size="Leave input_size out",
)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Predictor:
    """A network with its preprocessing.

    Attributes:
        network: in evaluation mode, on its device.
        preprocessing: turns an image into the network's input.
        source: the name or path that the user gave.
        base: what the weights were made from (``source``, ``sha256``, ``license``); None for what is not known.
        metadata: what else the weights file, or the ``.json`` next to it, says about the model.
        notes: sentences for the user, such as what was assumed about the file.
        precision: of products and convolutions; float32 unless a command is told otherwise.
    """

    network: DepthModel
    preprocessing: Preprocessing
    source: str
    base: Mapping[str, str | None]
    metadata: Mapping[str, Any]
    notes: tuple[str, ...]
    precision: Precision = "fp32"

    def __repr__(self) -> str:
        """One line, without the layers of the network."""
        height, width = self.preprocessing.input_size
        depth = "" if self.network.end_m is None else f"max_depth_m={self.network.end_m:g}, "
        return (
            f"Predictor({self.source!r}, {self.kind}, {self.network.encoder_name}, {depth}input_size={height}x{width}, "
            f"device={self.device})"
        )

    @property
    def kind(self) -> Kind:
        """
        ``metric`` (predicts meters), ``relative`` (predicts inverse depth without a unit; larger is nearer), or
        ``relative_depth`` (predicts depth without a unit; larger is farther).
        """
        return self.network.kind

    @property
    def max_depth_m(self) -> float | None:
        """The max depth of a metric model, which ends there unless its head is exponential; None for others."""
        return self.network.max_depth_m

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    @property
    def is_compiled(self) -> bool:
        """Whether the network was compiled."""
        return self.network._compiled_call_impl is not None

    @property
    def canonical(self) -> TrainingCamera | None:
        """The canonical camera of a model that needs the camera of an image to predict its meters; None for others."""
        camera = self.network.camera
        return camera if camera is not None and camera.is_canonical else None

    @property
    def range_m(self) -> float | None:
        """Up to which depth pictures are drawn, meters; None for a relative model, or where no range is known."""
        if self.canonical is None:
            return self.max_depth_m
        return self.canonical.max_depth_m or self.network.end_m

    def predict(self, image: ImageLike, *, camera: CameraLike | None = None, flip: bool = False) -> NDArray[np.float32]:
        """
        Args:
            image: (H, W, 3) uint8, RGB; or the path of an image file, or a PIL image, both turned upright as their
                EXIF tag says. OpenCV reads BGR, which cannot be detected: convert it with ``image[..., ::-1]``.
            camera: of the image, for a canonical model: fx, fy, cx, cy in pixels, a ``Camera``, or ``"training"``,
                which assumes that of the training and warns. None: of a file, the EXIF data's, with a warning, since
                that is a guess. Other models do not need it.
            flip: average with the prediction for the mirrored image, mirrored back. This takes twice the time.

        Returns:
            (H, W): meters along the optical axis for a metric model, inverse depth >= 0 for a relative one, and depth
            without a unit for one of relative depth.

        Raises:
            ValueError: the image is none of these, or the model is canonical and no camera is known.
            DataError: there is no such file, or it is no image.
            FinetuneError: the camera cannot be that of the image.
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
        focal_px: float | None,
        *,
        flip: bool = False,
        size: tuple[int, ...] | None = None,
    ) -> NDArray[np.float32]:
        """As ``predict``, for a focal length at the network's size, pixels; None for a model that needs none. ``size``
        is the height and width of the file of an image that was reduced as it was decoded."""
        height, width = size or image.shape[:2]
        pixels = torch.from_numpy(self.preprocessing(image, size=(height, width)))[None]
        (prediction,) = self.predict_batch(pixels, [(height, width)], [focal_px], flip=flip)
        return prediction

    def predict_batch(
        self,
        batch: Tensor,
        sizes: Sequence[tuple[int, int]],
        focals_px: Sequence[float | None],
        *,
        flip: bool = False,
    ) -> list[NDArray[np.float32]]:
        """
        Args:
            batch: as for ``__call__``.
            sizes: (height, width) of each image, to which its prediction is resized.
            focals_px: of each image at the network's size; None for a model that needs none.
            flip: as for ``predict``.

        Returns:
            A prediction for each image, as ``predict`` gives it.
        """
        found = self._predict_sizes(batch, sizes, focals_px)
        if not flip:
            return found
        mirrored = self._predict_sizes(batch.flip(-1), sizes, focals_px)
        pairs = zip(found, mirrored, strict=True)
        return [np.asarray((depth + other[:, ::-1]) / 2, dtype=np.float32) for depth, other in pairs]

    def _predict_sizes(
        self, batch: Tensor, sizes: Sequence[tuple[int, int]], focals_px: Sequence[float | None]
    ) -> list[NDArray[np.float32]]:
        predictions = self._forward(batch)
        each = zip(predictions, sizes, focals_px, strict=True)
        return [resize_prediction(self._to_meters(prediction[None], focal), size) for prediction, size, focal in each]

    def points(
        self,
        image: ImageLike,
        intrinsics: tuple[float, float, float, float] | Camera,
        *,
        edge_ratio: float | None = None,
        max_points: int | None = None,
    ) -> PointCloud:
        """
        Args:
            image: as for ``predict``.
            intrinsics: fx, fy, cx, cy of the image, pixels, or a ``Camera``.
            edge_ratio, max_points: as for ``point_cloud``.

        Returns:
            Colored points in meters; ``.save("cloud.ply")`` writes them.

        Raises:
            ValueError: the image is none of those, or the model is relative and knows no meters.
            FinetuneError: the intrinsics cannot be those of the image.
        """
        if self.kind != "metric":
            raise ValueError(f"{self.source} is relative: it knows no meters, so there are no points")
        found = to_network_image(image, self.preprocessing)
        height, width = found.size
        camera = camera_of(intrinsics, height, width)
        focal_px = self.preprocessing.focal_px(camera, height, width)
        warn_of_lens(self, focal_px)
        depth_m = self.predict_at(found.pixels, focal_px, size=found.size)
        return point_cloud(depth_m, found.full(), camera, edge_ratio=edge_ratio, max_points=max_points)

    def __call__(self, batch: Tensor, focal_px: float | None = None) -> Tensor:
        """
        Args:
            batch: (B, 3, H, W), normalized, sides multiples of 14; of any floating type, on any device.
            focal_px: (fx + fy) / 2 of the images at that size, pixels; for a canonical model.

        Returns:
            (B, 1, H, W) float32 on the network's device, without gradient; the unit is that of ``predict``.

        Raises:
            ValueError: the batch has another shape, or a canonical model gets no focal length.
        """
        return self._to_meters(self._forward(batch), focal_px)

    def _forward(self, batch: Tensor) -> Tensor:
        device = self.device
        # The same inside the caller's autocast, so that every command gives the same prediction.
        with torch.no_grad(), autocast_to(self.precision, device), without_tf32():
            prediction: Tensor = self.network(batch.to(device, torch.float32))
        return prediction

    def _to_meters(self, prediction: Tensor, focal_px: float | None) -> Tensor:
        if not self.canonical:
            return prediction
        if focal_px is None:
            raise ValueError(f"{self.source} predicts meters only with focal_px, that of the batch at its size")
        return prediction * self.canonical.meters_factor(focal_px)


def load_model(
    source: str | os.PathLike[str],
    device: str = "cpu",
    *,
    kind: KindOption = "auto",
    max_depth_m: float | None = None,
    version: str = "auto",
    input_size: tuple[int, int] | None = None,
) -> Predictor:
    """
    Args:
        source: a run folder (its ``best/`` is loaded), a weights file of this toolkit, an official ``.pth``, a folder
            that transformers wrote, or a hub id.
        device: ``cpu``, ``cuda``, ``cuda:1``, or ``auto`` for the GPU if there is one.
        kind: ``relative`` or ``metric``, for an official ``.pth`` without the ``.json`` that our export writes.
        max_depth_m: meters, for such a file if it is metric.
        version: ``v1`` or ``v2`` of Depth Anything, for such a file: the two look alike. ``auto`` is V2.
        input_size: height and width in pixels of the training images, for such a file or for a folder of transformers
            without its processor. The default is 518x518; ``tiny`` has none, since it was never published.

    Returns:
        A model with ``.predict(image)``. What it had to assume about a file is a warning.

    Raises:
        CheckpointError: the file is missing, broken, of no known format, or contradicts the arguments.
        FinetuneError: there is no such device.
        ValueError: an argument is not one of the above.
    """
    if kind not in get_args(KindOption):
        raise ValueError(f"kind is {kind!r}; expected one of {', '.join(get_args(KindOption))}")
    if max_depth_m is not None and not 0 < max_depth_m < math.inf:
        raise ValueError(f"max_depth_m is {max_depth_m}; expected a positive number of meters")
    if version not in ("auto", *VERSIONS):
        raise ValueError(f"version is {version!r}; expected auto, v1 or v2")
    if input_size is not None:
        try:
            input_size = Preprocessing.from_mapping(Preprocessing(input_size=input_size).to_mapping()).input_size
        except (TypeError, ValueError):
            expected = f"height and width, multiples of {PATCH} up to {MAX_SIDE_PX}"
            raise ValueError(f"input_size is {input_size!r}; expected {expected}") from None
    checkpoint = read_checkpoint(
        os.fspath(source),
        kind=kind,
        max_depth_m=max_depth_m,
        version=version,
        input_size=input_size,
        wording=_IN_PYTHON,
    )
    predictor = build_predictor(checkpoint, select_device(device), _IN_PYTHON)
    if checkpoint.kind_assumed or checkpoint.version_assumed or checkpoint.input_size is None or checkpoint.chosen:
        for note in predictor.notes:
            warnings.warn(note, stacklevel=2)
    return predictor


def adapter_base(source: str | os.PathLike[str], device: str = "cpu") -> DepthModel:
    """
    Args:
        source: a folder of adapters, as ``finetune export --to adapter`` writes it.
        device: as for ``load_model``.

    Returns:
        The network for ``peft.PeftModel.from_pretrained(network, folder)``: the encoder of the base that the folder
        names, with the head, the max depth and the version that the adapters were trained for.

    Raises:
        CheckpointError: it is no such folder, or its base is not found or is another one.
        FinetuneError: there is no such device.
    """
    checkpoint = read_checkpoint(os.fspath(source), adapters=False, wording=_IN_PYTHON)
    if checkpoint.format != "adapter":
        raise CheckpointError(checkpoint.source, "has no adapters", "Use load_model, or name a folder that has some")
    return whole_network(checkpoint).to(select_device(device))


def build_predictor(checkpoint: Checkpoint, device: torch.device, wording: ArgumentNames = IN_RECIPE) -> Predictor:
    """
    Args:
        checkpoint: as ``read_checkpoint`` returns it.
        device: where the network goes.
        wording: the names of ``read_checkpoint``'s arguments in errors and notes.

    Raises:
        CheckpointError: the checkpoint does not cover the network, or the input size of a ``tiny`` one is unknown.
    """
    base = checkpoint.metadata.get("base")
    itself = {"source": checkpoint.source, "sha256": checkpoint.sha256, "license": checkpoint.license}
    return Predictor(
        network=whole_network(checkpoint).to(device),
        preprocessing=_read_preprocessing(checkpoint, wording),
        source=checkpoint.source,
        # Published weights are their own base.
        base=base if _are_texts(base) and base else itself,
        metadata=checkpoint.metadata,
        notes=(*checkpoint.notes, *_note_assumed_size(checkpoint, wording)),
    )


def _are_texts(base: object) -> TypeGuard[dict[str, str | None]]:
    return isinstance(base, dict) and all(isinstance(value, str | None) for value in base.values())


def select_device(name: str) -> torch.device:
    """
    Args:
        name: ``auto``, or what PyTorch calls a device.

    Raises:
        FinetuneError: it cannot be used here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    # PyTorch raises an AssertionError if it was built without the device.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0].rstrip(". ")
        raise FinetuneError(f"device {name}: not usable here ({reason}). Use the device cpu or auto.") from error
    return device


def _note_assumed_size(checkpoint: Checkpoint, wording: ArgumentNames) -> tuple[str, ...]:
    """A note if the input size is assumed: at another size than that of training, depth is wrong."""
    if checkpoint.input_size is not None:
        return ()
    height, width = ORIGINAL_INPUT_SIZE
    return (
        f"{checkpoint.source} cannot say at which input size it was trained: taken as {height}x{width}, that of the "
        f"published weights. If it is another, set {wording.input_size}",
    )


def _read_preprocessing(checkpoint: Checkpoint, wording: ArgumentNames) -> Preprocessing:
    """
    Raises:
        CheckpointError: the preprocessing in the file, or in the ``.json`` next to it, is not valid; or the input size
            of a ``tiny`` model is unknown, which was never published and so has no default.
    """
    mapping = checkpoint.metadata.get("preprocessing")
    if mapping is None and checkpoint.input_size is None and checkpoint.encoder == "tiny":
        raise CheckpointError(
            checkpoint.source,
            "has the encoder tiny, and nothing says at which input size it was trained",
            f"Set {wording.input_size} to its height and width, or put the .json that was exported with it next to it",
        )
    if mapping is None:
        return Preprocessing(input_size=checkpoint.input_size or ORIGINAL_INPUT_SIZE)
    try:
        return Preprocessing.from_mapping(mapping)
    except ValueError as error:
        raise CheckpointError(checkpoint.metadata_file, str(error), "Export it again from its run folder") from error
