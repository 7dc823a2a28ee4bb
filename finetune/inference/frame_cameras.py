"""How the cameras of labeled frames are known."""

from __future__ import annotations

from dataclasses import dataclass, field

from finetune.data.camera import Camera, CameraOptions
from finetune.inference.predictor import Predictor
from finetune.utils.errors import DataError


@dataclass(frozen=True, kw_only=True)
class FrameCameras:
    """How the cameras of labeled frames are known.

    Attributes:
        options: of frames for which nothing else says it.
        assume_training: every frame is taken for one of the training camera; for a canonical model.
    """

    options: CameraOptions = field(default_factory=CameraOptions)
    assume_training: bool = False

    def focal_px(self, predictor: Predictor, name: str, camera: Camera | None, height: int, width: int) -> float | None:
        """
        The focal length at the network's size, pixels; None where no camera is known.

        Raises:
            DataError: it is not known, and the model is canonical.
        """
        if predictor.canonical and self.assume_training:
            return predictor.canonical.focal_px
        camera = camera or self.options.camera(height, width)
        if camera is None and predictor.canonical:
            raise DataError(
                name,
                "has no camera, and the model predicts meters only with one",
                "Give its entry intrinsics, give --intrinsics FX,FY,CX,CY, or assume that of the training: --camera "
                "training",
            )
        return None if camera is None else predictor.preprocessing.focal_px(camera, height, width)


UNKNOWN_CAMERAS = FrameCameras()
