"""Refuses, before step 1, what a recipe asks for at the end of a run and cannot have; for ``train`` and ``check``."""

from __future__ import annotations

from finetune.data.crops import crop_for_protocol
from finetune.evaluation.protocols import crop_of
from finetune.recipe.schema import Recipe
from finetune.training.startup import Startup, make_protocols
from finetune.utils import registry
from finetune.utils.errors import DataError, FileFault, FinetuneError
from finetune.utils.indices import evenly_spread

_FRAMES = 24  # how many frames of each validation entry are read


def require_exports(recipe: Recipe, startup: Startup | None = None) -> None:
    """
    Args:
        recipe: its ``export`` names the formats.
        startup: what the run starts from, if that is known by now.

    Raises:
        FinetuneError: a format cannot hold such a model, or what writes it is not installed; every one of them.
    """
    faults = []
    for name in recipe.export:
        try:
            exporter = registry.find(registry.EXPORTERS, name)()
            if recipe.data.camera.mode == "canonical" and not exporter.holds_camera:
                raise FinetuneError(
                    f"format {name} cannot hold the camera that a model of data.camera.mode canonical needs. Remove "
                    f"it, and write it for one camera afterwards: finetune export RUN --to {name} --for-camera FX."
                )
            exporter.require_activation(name, recipe.model.head_activation)
            exporter.require_writable(recipe.model.head_max_depth_m, adapters=recipe.model.train == "lora")
            if startup:
                # The run exports for images of the size of the first validation frame.
                height, width = recipe.data.val[0].source[0].image.shape[:2]
                exporter.require_positions(
                    recipe.name, startup.model.position_offset, startup.preprocessing.network_size(height, width)
                )
        except FinetuneError as error:
            faults.append(f"{recipe.where('export')}: {error}")
    if faults:
        raise FinetuneError("\n".join(faults))


def require_protocols(recipe: Recipe) -> None:
    """
    Try each protocol on frames of every validation entry. The first one scores the run from step 0 on, all of them at
    its end.

    Raises:
        DataError: a protocol is not defined for the size of a frame, or leaves nothing of all frames; names the key.
    """
    for protocol in make_protocols(recipe):
        settings = protocol.settings
        if settings.crop == settings.image_crop == "none":
            continue
        counted = 0
        for entry in recipe.data.val:
            for index in evenly_spread(len(entry.source), _FRAMES):
                sample = entry.source[index]
                try:
                    view = crop_for_protocol(settings.image_crop, sample)
                    rows, columns = (
                        (slice(None), slice(None))
                        if settings.crop == "none"
                        else crop_of(settings.crop, view.depth_m.shape, sample.source)
                    )
                except FileFault as fault:
                    where = recipe.where("evaluation.protocols")
                    raise DataError(fault.source, fault.found, f"{fault.fix} ({where})") from None
                in_range = (view.depth_m >= protocol.min_depth_m) & (view.depth_m <= protocol.max_depth_m)
                counted += int((view.valid & in_range)[rows, columns].sum())
        if not counted and all(len(entry.source) <= _FRAMES for entry in recipe.data.val):
            raise DataError(
                "data.val",
                f"no frame has a measured pixel that counts under the protocol {protocol.name}",
                f"Score it by plain, or by another protocol ({recipe.where('evaluation.protocols')})",
            )
