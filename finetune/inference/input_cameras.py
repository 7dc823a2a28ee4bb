"""The cameras of images and videos to predict: from a list, from options, or guessed from EXIF data."""

from __future__ import annotations

from collections.abc import Sequence

from finetune.data.camera import Camera, CameraOptions, camera_of
from finetune.data.readers.exif import guess_camera, has_focal_length
from finetune.inference.inputs import Input
from finetune.inference.predictor import Predictor
from finetune.utils.errors import FinetuneError, ResultError


def require_cameras(
    predictor: Predictor, inputs: Sequence[Input], cameras: CameraOptions, *, assume_training: bool
) -> None:
    """
    Args:
        predictor: the model.
        inputs: images and videos.
        cameras: of images for which no list gives intrinsics.
        assume_training: every image is taken for one of the training camera.

    Raises:
        FinetuneError: the model needs a camera, and an image has none.
    """
    if not predictor.canonical or assume_training or cameras.is_known:
        return
    without = next((given.path for given in inputs if not (given.intrinsics or has_focal_length(given.path))), None)
    if without is not None:
        raise FinetuneError(
            f"{without}: {predictor.source} predicts meters only with the camera of the image, and its EXIF data "
            "says no focal length. Give --intrinsics FX,FY,CX,CY in pixels (with --intrinsics-size W,H if they are "
            "for another image size), --hfov DEGREES, a list with the columns fx, fy, cx, cy, or --camera training "
            "to assume the camera of the training."
        )


def listed_camera(given: Input, height: int, width: int, cameras: CameraOptions) -> Camera | None:
    """
    The camera that a list or an option gives; None where none does.

    Raises:
        ResultError: it cannot be that of the image.
    """
    listed = given.intrinsics
    try:
        return camera_of(listed, height, width, cameras.size) if listed else cameras.camera(height, width)
    except FinetuneError as error:
        raise ResultError(f"{given.path}: {error}") from error


def find_input_focal_px(
    predictor: Predictor, given: Input, height: int, width: int, cameras: CameraOptions, *, assume_training: bool
) -> float | None:
    """
    The focal length of an image, or of a frame of a video, at the network's size, pixels; None where no camera is
    known.

    Args:
        predictor: the model.
        given: the image or video.
        height, width: of the image.
        cameras, assume_training: as for ``require_cameras``.

    Raises:
        ResultError: the camera cannot be that of the image, or a canonical model gets none.
    """
    canonical = predictor.canonical
    if canonical and assume_training:
        return canonical.focal_px
    camera = listed_camera(given, height, width, cameras)
    if camera is None and not given.is_video:
        camera = guess_camera(given.path, height, width)
    if camera is None and canonical:
        raise ResultError(
            f"{given.path}: no camera is known, and the model predicts meters only with one. Give --intrinsics "
            "FX,FY,CX,CY."
        )
    return None if camera is None else predictor.preprocessing.focal_px(camera, height, width)
