"""What ``predict`` of a model takes: an image, and the camera of it. Nothing here imports torch."""

from __future__ import annotations

import os
import sys
import warnings
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from finetune.data.camera import Camera, camera_of
from finetune.data.readers.exif import guess_camera
from finetune.data.readers.files import ImageFile, read_image, read_network_image
from finetune.data.readers.image_levels import ImageLevels
from finetune.inference.lens_notes import LensModel, explain_lens
from finetune.models.training_camera import TrainingCamera

if TYPE_CHECKING:
    from PIL import Image

    from finetune.data.preprocessing import Preprocessing

# PIL modes that become RGB without a change of scale.
_PIL_MODES = ("RGB", "RGBA", "RGBX", "L", "LA", "P", "PA", "1", "CMYK", "YCbCr", "HSV", "LAB")
# The camera of the training, as ``predict`` is told to assume it.
TRAINING: Literal["training"] = "training"
CameraLike: TypeAlias = tuple[float, float, float, float] | Camera | Literal["training"]
ImageLike: TypeAlias = "NDArray[np.uint8] | str | os.PathLike[str] | Image.Image"


class CameraModel(Protocol):
    """What of a model ``find_focal_px`` asks for."""

    @property
    def source(self) -> str:
        """The name of the model in errors."""
        ...

    @property
    def preprocessing(self) -> Preprocessing:
        """From which the size follows that the network sees."""
        ...

    @property
    def canonical(self) -> TrainingCamera | None:
        """The canonical camera."""
        ...

    @property
    def network(self) -> LensModel:
        """What knows the lenses of the training."""
        ...


def find_focal_px(
    model: CameraModel, size: tuple[int, int], camera: CameraLike | None, file: str | os.PathLike[str] | None
) -> float:
    """
    Args:
        model: a canonical one.
        size: height and width of an image, pixels.
        camera: of the image, as for ``Predictor.predict``.
        file: which the image was read from; None if it was not.

    Returns:
        The focal length at the network's size, pixels. A guess, an assumption and a lens unlike those of the training
        are warnings, which name the line that called ``predict``.

    Raises:
        ValueError: no camera is known.
        FinetuneError: the camera cannot be that of the image.
    """
    assert model.canonical is not None
    height, width = size
    if camera is None and file is not None:
        camera = guess_camera(file, height, width)
        if camera is not None:
            warnings.warn(
                f"{file}: its focal length is taken from EXIF, {camera.fx_px:.0f} px, which is a guess", stacklevel=3
            )
    if camera is None:
        raise ValueError(
            f"{model.source} predicts meters only with the camera of the image: give camera=(fx, fy, cx, cy) in "
            'pixels, or camera="training" to assume that of its training'
        )
    if isinstance(camera, str):
        if camera != TRAINING:
            raise ValueError(f"camera is {camera!r}; expected fx, fy, cx, cy in pixels, a Camera, or {TRAINING!r}")
        focal_px = model.canonical.focal_px
        warnings.warn(
            f"{model.source}: the camera of the training is assumed, {focal_px:.0f} px at the network's size; for "
            "another lens every depth is off by the ratio",
            stacklevel=3,
        )
        return focal_px
    focal_px = model.preprocessing.focal_px(camera_of(camera, height, width), height, width)
    warn_of_lens(model, focal_px, stacklevel=4)
    return focal_px


def warn_of_lens(model: CameraModel, focal_px: float, stacklevel: int = 3) -> None:
    """Warn of a focal length at the network's size that is unlike those of the training."""
    for clause in explain_lens(model.network, focal_px):
        warnings.warn(f"{model.source}: the focal length {clause}", stacklevel=stacklevel)


def to_network_image(image: ImageLike, network: Preprocessing) -> ImageFile:
    """
    Args:
        image: as for ``to_image_array``.
        network: what a network sees of it, and how files are decoded for it; an array is taken as it is.

    Returns:
        The image, upright.

    Raises:
        ValueError, DataError: as for ``to_image_array``.
    """
    if isinstance(image, str | os.PathLike):
        return read_network_image(image, network)
    array = to_image_array(image)
    return ImageFile(array, (array.shape[0], array.shape[1]))


def to_image_array(image: ImageLike, levels: ImageLevels | None = None) -> NDArray[np.uint8]:
    """
    Args:
        image: an array, the path of an image file, or a PIL image.
        levels: the values of black and white in files of more than 8 bits.

    Returns:
        (H, W, 3) uint8, RGB. A file or a PIL image is turned upright as its EXIF tag says.

    Raises:
        ValueError: it is none of these; names the fix.
        DataError: there is no such file, or it is not an image.
    """
    if isinstance(image, str | os.PathLike):
        return read_image(image, upright=True, levels=levels)
    pil = sys.modules.get("PIL.Image")  # a caller with such an image has imported it
    if pil is not None and isinstance(image, pil.Image):
        from PIL import ImageOps

        if image.mode not in _PIL_MODES:
            raise ValueError(
                f"image has PIL's mode {image.mode}, whose scale is not known; expected RGB: give the path of the file"
            )
        image = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    _require_image(image)
    return np.asarray(image)


def _require_image(image: object) -> None:
    """
    Raises:
        ValueError: not (H, W, 3) uint8; names the fix.
    """
    if not isinstance(image, np.ndarray):
        raise ValueError(
            f"image is a {type(image).__name__}; expected an array, such as np.asarray(image), a path, or a PIL image"
        )
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
