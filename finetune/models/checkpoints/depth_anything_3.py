"""The monocular releases of Depth Anything 3, DA3MONO and DA3METRIC: their tensor names <-> ours.

Their network is that of Depth Anything V2 with other weights and an exponential as last activation. MONO predicts depth
of unknown scale and shift, METRIC meters of a lens of 300 px. Nothing but a name tells the two apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.models.checkpoints.format import Description, Format
from finetune.models.checkpoints.official import Official
from finetune.models.checkpoints.sidecar import read_json
from finetune.models.training_camera import TrainingCamera
from finetune.utils.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

CONFIG_FILE = "config.json"
# What follows in their names, and what in the official ones.
PREFIXES = (("backbone.pretrained.", "pretrained."), ("head.", "depth_head."))
# A second branch next to the last two layers, for which our network has no place.
SKY = "head.scratch.sky_output_conv2."
# A tensor of those for several views, whose encoder compares the views.
OF_SEVERAL_VIEWS = "backbone.pretrained.camera_token"
# Layers that its network lacks and ours has without ever reading them, by official names.
UNUSED = ("pretrained.mask_token", "depth_head.scratch.refinenet4.resConfUnit1.")
# Of the lens whose meters METRIC predicts, pixels at the network's size: utils/alignment.py of its package.
FOCAL_PX = 300.0
# Its package fits the longer side to 504; for images of 4:3, this is the same size.
PREPROCESSING = {"input_size": [378, 504], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
LICENSE = "Apache-2.0"


class DepthAnything3(Format):
    """``model.safetensors`` as published, next to a ``config.json`` that names the model."""

    files = ("model.safetensors",)

    @staticmethod
    def recognises(names: Iterable[str], metadata: Mapping[str, object]) -> bool:
        """Whether these are the tensor names of a monocular one."""
        names = set(names)
        return (
            OF_SEVERAL_VIEWS not in names
            and {"backbone.pretrained.cls_token", "head.projects.0.weight", "head.scratch.output_conv2.2.weight"}
            <= names
        )

    @staticmethod
    def to_ours(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors by our names, without those for the sky; a name of another format stays as it is."""
        return Official.to_ours(
            {_to_official(name): tensor for name, tensor in tensors.items() if not name.startswith(SKY)}
        )

    @staticmethod
    def from_ours(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors by their names: all that their network needs but the layers for the sky."""
        official = Official.from_ours(tensors)
        return {_from_official(name): tensor for name, tensor in official.items() if not name.startswith(UNUSED)}

    @staticmethod
    def description(path: Path, source: str, metadata: Mapping[str, object], sha256: str) -> Description:
        """
        What follows from its name, which ``config.json``, the source or the path says.

        Raises:
            CheckpointError: none of them says whether it is MONO or METRIC, or the configuration is broken.
        """
        config = path.with_name(CONFIG_FILE)
        named = read_json(config, "Fetch it again from the hub, or remove this file").get("model_name")
        texts = (str(named), source, path.name, path.parent.name)
        found = next((name for text in texts for name in ("MONO", "METRIC") if f"DA3{name}" in text.upper()), None)
        if found is None:
            raise CheckpointError(
                source,
                "is a monocular Depth Anything 3, and nothing says whether it is DA3MONO or DA3METRIC",
                f"Put the {CONFIG_FILE} of its repository next to it, or name it DA3MONO-LARGE.safetensors or "
                "DA3METRIC-LARGE.safetensors",
            )
        says: dict[str, object] = {
            "checkpoint_version": "v2",
            "preprocessing": PREPROCESSING,
            "base": {"source": f"depth-anything/DA3{found}-LARGE", "sha256": sha256, "license": LICENSE},
        }
        notes = [f"{source}: DA3{found}, {LICENSE}; its sky layers are left out"]
        if found == "MONO":
            says |= {"kind": "relative_depth", "max_depth_m": None}
        else:
            camera = TrainingCamera(mode="canonical", focal_px=FOCAL_PX, seen_px=None)
            # An exponential has no end; 1 m is what its output of 0 stands for.
            says |= {"kind": "metric", "max_depth_m": 1.0, "activation": "exp", "camera": camera.to_mapping()}
            notes.append(f"{source} predicts meters of a lens of {FOCAL_PX:g} px: every image needs its focal length")
        return Description(says=says, file=str(config), notes=tuple(notes))


def _to_official(name: str) -> str:
    for theirs, official in PREFIXES:
        if name.startswith(theirs):
            return official + name.removeprefix(theirs)
    return name


def _from_official(name: str) -> str:
    for theirs, official in PREFIXES:
        if name.startswith(official):
            return theirs + name.removeprefix(official)
    return name
