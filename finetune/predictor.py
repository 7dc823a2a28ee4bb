"""Weights in any format -> depth of an image."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.camera import Camera
from finetune.checkpoints.claims import Wording
from finetune.errors import CheckpointError, FinetuneError
from finetune.networks.answers import resized_answer
from finetune.networks.depth_model import DepthModel
from finetune.networks.encoder_specs import VERSIONS
from finetune.point_cloud import PointCloud, camera_of, point_cloud
from finetune.preprocessing import Preprocessing
from finetune.weights import Checkpoint, read_checkpoint, whole_network

# What the published weights were trained at; their files cannot say it.
ORIGINAL_INPUT_SIZE = (518, 518)
DEVICES = ("auto", "cpu", "cuda")
_IN_PYTHON = Wording(
    source="name",
    kind="kind",
    max_depth_m="max_depth_m",
    version="version",
    no_max_depth="Leave max_depth_m out",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictor:
    """A network and the preprocessing that belongs to it.

    Attributes:
        network: in evaluation mode, on its device.
        preprocessing: what an image goes through first.
        source: what the user wrote.
        base: what the weights were made from (``source``, ``sha256``, ``license``); None where it is not known.
        metadata: what else the weights file, or the ``.json`` beside it, says of itself.
        notes: sentences for whoever uses it.
    """

    network: DepthModel
    preprocessing: Preprocessing
    source: str
    base: Mapping[str, Any]
    metadata: Mapping[str, Any]
    notes: tuple[str, ...]

    @property
    def kind(self) -> str:
        """``metric`` (answers are meters) or ``relative`` (answers are inverse depth, bigger is nearer, no unit)."""
        return self.network.kind

    @property
    def max_depth_m(self) -> float | None:
        """The largest depth a metric model can answer, meters; None for a relative one."""
        return self.network.max_depth_m

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def predict(self, image: NDArray[np.uint8], *, flip: bool = False) -> NDArray[np.float32]:
        """
        Args:
            image: (H, W, 3) uint8, RGB. OpenCV reads BGR, which no check can tell: turn it with ``image[..., ::-1]``.
            flip: average the answer with that to the mirrored image, mirrored back; twice the time.

        Returns:
            (H, W): meters along the optical axis for a metric model, inverse depth >= 0 for a relative one.

        Raises:
            ValueError: the image is not such an array.
        """
        _require_image(image)
        size = (image.shape[0], image.shape[1])
        batch = torch.from_numpy(self.preprocessing(image))[None]
        answer = resized_answer(self(batch), size)
        if not flip:
            return answer
        mirrored = resized_answer(self(batch.flip(-1)), size)[:, ::-1]
        return np.asarray((answer + mirrored) / 2, dtype=np.float32)

    def points(
        self,
        image: NDArray[np.uint8],
        intrinsics: tuple[float, float, float, float] | Camera,
        *,
        edge_ratio: float | None = None,
        max_points: int | None = None,
    ) -> PointCloud:
        """
        Args:
            image: as of ``predict``.
            intrinsics: fx, fy, cx, cy of the image, pixels, or a ``Camera``.
            edge_ratio, max_points: as of ``point_cloud``.

        Returns:
            Colored points in meters; ``.save("cloud.ply")`` writes them.

        Raises:
            ValueError: the image is not such an array, or the model is relative and knows no meters.
            FinetuneError: the intrinsics cannot be those of the image.
        """
        if self.kind == "relative":
            raise ValueError(f"{self.source} is relative: its answers are no meters, so there are no points")
        depth_m = self.predict(image)
        camera = camera_of(intrinsics, *image.shape[:2])
        return point_cloud(depth_m, image, camera, edge_ratio=edge_ratio, max_points=max_points)

    def __call__(self, batch: Tensor) -> Tensor:
        """
        Args:
            batch: (B, 3, H, W), normalized, sides multiples of 14; of any floating type, on any device.

        Returns:
            (B, 1, H, W) float32 on the network's device, without gradient; the unit is that of ``predict``.

        Raises:
            ValueError: the batch has another shape.
        """
        device = self.device
        # float32 whatever autocast says around us, so that every command gives one answer.
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            return self.network(batch.to(device, torch.float32))


def load_model(
    source: str | os.PathLike[str],
    device: str = "cpu",
    *,
    kind: str = "auto",
    max_depth_m: float | None = None,
    version: str = "auto",
) -> Predictor:
    """
    Args:
        source: a run folder (its ``best/``), one of our weights files, an official ``.pth``, a folder that transformers
            wrote, or a hub id.
        device: ``cpu``, ``cuda``, ``cuda:1``, or ``auto`` for the GPU where there is one.
        kind: of an official ``.pth`` without the ``.json`` that our export writes: ``relative`` or ``metric``.
        max_depth_m: of a metric one of these, meters.
        version: of one of these, ``v1`` or ``v2`` of Depth Anything, whose files look alike; ``auto`` is V2.

    Returns:
        A model to call ``.predict(image)`` on. What it assumed about a file that cannot say it is a warning.

    Raises:
        CheckpointError: the file is missing, broken, of no known format, or contradicts the arguments.
        FinetuneError: there is no such device.
        ValueError: an argument is not one of the above.
    """
    if kind not in ("auto", "relative", "metric"):
        raise ValueError(f"kind is {kind!r}; expected auto, relative or metric")
    if max_depth_m is not None and not 0 < max_depth_m < math.inf:
        raise ValueError(f"max_depth_m is {max_depth_m}; expected a positive number of meters")
    if version not in ("auto", *VERSIONS):
        raise ValueError(f"version is {version!r}; expected auto, v1 or v2")
    checkpoint = read_checkpoint(
        os.fspath(source), kind=kind, max_depth_m=max_depth_m, version=version, wording=_IN_PYTHON
    )
    if checkpoint.kind_assumed or checkpoint.version_assumed:
        for note in checkpoint.notes:
            warnings.warn(note, stacklevel=2)
    return predictor_of(checkpoint, chosen_device(device))


def predictor_of(checkpoint: Checkpoint, device: torch.device) -> Predictor:
    """
    Raises:
        CheckpointError: the checkpoint does not cover the network.
    """
    base = checkpoint.metadata.get("base")
    itself = {"source": checkpoint.source, "sha256": checkpoint.sha256, "license": checkpoint.license}
    return Predictor(
        network=whole_network(checkpoint).to(device),
        preprocessing=_preprocessing_of(checkpoint),
        source=checkpoint.source,
        # Published weights stand for themselves.
        base=base if isinstance(base, dict) and base else itself,
        metadata=checkpoint.metadata,
        notes=checkpoint.notes,
    )


def chosen_device(name: str) -> torch.device:
    """
    Args:
        name: ``auto``, or what PyTorch calls a device.

    Raises:
        FinetuneError: it is not here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    # PyTorch refuses with an AssertionError where it was built without the device.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0].rstrip(". ")
        raise FinetuneError(f"device {name}: not usable here ({reason}). Use the device cpu or auto.") from error
    return device


def _preprocessing_of(checkpoint: Checkpoint) -> Preprocessing:
    """
    Raises:
        CheckpointError: the file, or the ``.json`` beside it, says it, but not as we would have written it.
    """
    mapping = checkpoint.metadata.get("preprocessing")
    if mapping is None:
        return Preprocessing(input_size=ORIGINAL_INPUT_SIZE)
    try:
        return Preprocessing.from_mapping(mapping)
    except ValueError as error:
        raise CheckpointError(checkpoint.metadata_file, str(error), "Export it again from its run folder") from error


def _require_image(image: Any) -> None:
    """
    Raises:
        ValueError: not (H, W, 3) uint8; names the fix.
    """
    if not isinstance(image, np.ndarray):
        raise ValueError(f"image is a {type(image).__name__}; expected an array, such as np.asarray(image)")
    found = f"image is {image.dtype} of shape {image.shape}; expected (height, width, 3) uint8, RGB"
    if image.dtype.kind == "f":
        raise ValueError(f"{found}: where its values are 0 to 1, use (image * 255).round().astype(np.uint8)")
    if image.dtype != np.uint8:
        divided = "65535, use (image // 257)" if image.dtype == np.uint16 else "255, use image"
        raise ValueError(f"{found}: where its values are 0 to {divided}.astype(np.uint8)")
    if image.ndim == 2:
        raise ValueError(f"{found}: from gray, use np.repeat(image[..., None], 3, axis=2)")
    if image.ndim == 3 and image.shape[2] == 4:
        raise ValueError(f"{found}: without its alpha channel it is image[..., :3]")
    if image.ndim == 3 and image.shape[0] == 3 and image.shape[2] != 3:
        raise ValueError(f"{found}: from channels first, use image.transpose(1, 2, 0)")
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(found)
