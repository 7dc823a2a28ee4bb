"""What a run starts from: the checkpoint, the model, the baselines, and the last layer if it is solved for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor

from finetune.data.preprocessing import Preprocessing
from finetune.data.reader import Reader
from finetune.evaluation.baselines import MAX_IMAGES, Baselines, collect_labeled_pixels, fit_baselines, require_kind
from finetune.evaluation.protocol_settings import protocol_settings
from finetune.evaluation.protocols import Protocol
from finetune.models.checkpoints.fill import whole_network
from finetune.models.checkpoints.load import Checkpoint, license_sentence, read_checkpoint
from finetune.models.depth_model import DepthModel
from finetune.recipe.load import recipe_mapping
from finetune.recipe.run_dir import digest
from finetune.recipe.schema import DataEntry, Recipe
from finetune.training.cameras import UNKNOWN, RunCamera, make_run_camera
from finetune.training.head_init import (
    CALIBRATION_IMAGES,
    LOADED,
    draw_model,
    resolve_decoder_init,
    solve_last_layer,
    start_model,
)
from finetune.utils.errors import CheckpointError, FinetuneError
from finetune.utils.text import count_noun


@dataclass(frozen=True, kw_only=True)
class Startup:
    """What a run, or an evaluation, starts from.

    Attributes:
        recipe: as it runs, every ``auto`` written out.
        checkpoint: None if every weight is drawn.
        baselines: None for a relative head, whose baselines are aligned per image like its predictions.
        loaded: what of the checkpoint the network keeps, in a sentence; empty without a checkpoint.
        notes: sentences that whoever starts a run should read.
        warnings: sentences about what may be wrong.
        details: sentences for whoever wants to know more.
        solved: the last layer as it was solved for before step 1; None if it was not.
        camera: of the training data, and what its labels are scaled to.
    """

    recipe: Recipe
    accelerator: Accelerator
    checkpoint: Checkpoint | None
    preprocessing: Preprocessing
    model: DepthModel
    baselines: Baselines | None
    loaded: str
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    solved: Mapping[str, Tensor] | None = None
    camera: RunCamera = UNKNOWN

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run; see the function of this name."""
        return total_steps(self.recipe, self.accelerator.num_processes)

    @property
    def base(self) -> dict[str, str | None]:
        """What the model is made from, as weights files name it."""
        if self.checkpoint is None:
            return {"source": None, "sha256": None, "license": None}
        return {
            "source": self.checkpoint.source,
            "sha256": self.checkpoint.sha256,
            "license": self.checkpoint.license,
        }


def prepare_startup(recipe: Recipe, accelerator: Accelerator, *, trains: bool = True) -> Startup:
    """
    Read the checkpoint, compare it with labeled pixels, and make the model that training starts with.

    Only the main process looks at the pixels. The others get the baselines now, and the weights when the model is
    wrapped. ``trains``: False for an evaluation, whose validation frames may go without a camera.

    Raises:
        CheckpointError: the file is not what the recipe says, or cannot start a model.
        DataError: no training pixel is usable.
        FinetuneError: labels are to be canonical, and an entry has no intrinsics or reaches beyond a head that is kept.
    """
    checkpoint = read_base(recipe)
    preprocessing = _choose_preprocessing(recipe, checkpoint)
    camera = make_run_camera(recipe, preprocessing, checkpoint, trains=trains)
    model, origin = make_model(recipe, checkpoint, camera)
    warnings = (*warn_without_unit(recipe), *camera.warnings)
    shared: list[Any] = [None, None, ()]
    # A relative head needs no baselines, but the pixels also show whether the checkpoint's kind is as the recipe says.
    if accelerator.is_main_process and (recipe.model.head == "metric" or _is_kind_in_doubt(checkpoint)):
        shared = [*_fit_to_pixels(recipe, checkpoint, model, preprocessing, accelerator.device)]
    broadcast_object_list(shared)
    baselines, solved, skipped = shared
    if skipped:
        warnings = (*warnings, f"left out of the baselines, since they cannot be read: {'; '.join(skipped)}")
    return Startup(
        recipe=with_auto_resolved(recipe, checkpoint, accelerator.mixed_precision, camera),
        accelerator=accelerator,
        checkpoint=checkpoint,
        preprocessing=preprocessing,
        model=model,
        baselines=baselines,
        loaded=origin.loaded,
        notes=(*origin.notes, *camera.notes, *_note_frozen_encoder(recipe, model)),
        warnings=warnings,
        details=origin.details,
        solved=solved,
        camera=camera,
    )


def warn_without_unit(recipe: Recipe) -> tuple[str, ...]:
    """A warning that the tables are not in meters, if scored labels are of unknown scale and shift."""
    without = [f"data.val.{i}" for i, entry in enumerate(recipe.data.val) if entry.source.depth_is == "affine_inverse"]
    if not without:
        return ()
    return (
        f"{' and '.join(without)}: labels of unknown scale and shift, each map read as depth from 1 to 10: what is "
        "scored on them says how right the shape is, and its meters and millimeters are no meters",
    )


def _choose_preprocessing(recipe: Recipe, checkpoint: Checkpoint | None) -> Preprocessing:
    """The preprocessing of the run: the recipe's size, and the colors that the checkpoint was trained with."""
    wanted = Preprocessing(
        input_size=recipe.data.input_size, image_levels=recipe.data.image_levels, decode=recipe.data.decode
    )
    said = checkpoint.metadata.get("preprocessing") if checkpoint else None
    if checkpoint is None or said is None:
        return wanted
    try:
        colors = Preprocessing.from_mapping(said)
    except ValueError as error:
        raise CheckpointError(checkpoint.metadata_file, str(error), "Export it again from its run folder") from error
    if colors.image_levels is not None and wanted.image_levels is None:
        found = f"was trained with images of the levels {colors.image_levels.to_mapping()}, and the recipe says none"
        fix = f"Set data.image_black and data.image_white, or data.image_percentiles ({recipe.where('data')})"
        raise CheckpointError(checkpoint.source, found, fix)
    return replace(wanted, mean=colors.mean, std=colors.std)


def _note_other_size(recipe: Recipe, checkpoint: Checkpoint, decoder_init: str) -> tuple[str, ...]:
    """A note that a network that is kept whole is fed another size than it was trained at, if it is."""
    trained, fed = checkpoint.input_size, recipe.data.input_size
    if decoder_init != "keep" or trained in (None, fed):
        return ()
    assert trained is not None
    return (
        f"{checkpoint.source} was trained at {trained[0]}x{trained[1]} (height x width), data.input_size is "
        f"{fed[0]}x{fed[1]}: its predictions change with the size, and training starts from those at data.input_size",
    )


def _is_kind_in_doubt(checkpoint: Checkpoint | None) -> bool:
    """Whether the recipe says a checkpoint's kind. A native file says it itself, whatever the frames look like."""
    return checkpoint is not None and checkpoint.has_head and checkpoint.format != "native"


def read_base(recipe: Recipe) -> Checkpoint | None:
    """The recipe's checkpoint; None where every weight is drawn."""
    options = recipe.model
    if options.checkpoint is None:
        return None
    return read_checkpoint(
        options.checkpoint,
        kind=options.checkpoint_kind,
        max_depth_m=options.checkpoint_max_depth_m,
        version=options.checkpoint_version,
        encoder=options.encoder,
        input_size=options.checkpoint_input_size,
        where=recipe.where("model.checkpoint"),
    )


class Origin(NamedTuple):
    """Sentences about where the weights of a model come from; see ``Startup``."""

    loaded: str = ""
    notes: tuple[str, ...] = ()
    details: tuple[str, ...] = ()


def make_model(recipe: Recipe, checkpoint: Checkpoint | None, camera: RunCamera) -> tuple[DepthModel, Origin]:
    """The model before its last layer is solved for, and where its weights come from."""
    options = recipe.model
    if checkpoint is None:
        model = draw_model(
            options.encoder,
            camera.head_max_depth_m,
            recipe.seed,
            camera=camera.camera,
            activation=options.head_activation,
        )
        return model, Origin(details=(f"{options.encoder}: every weight drawn from seed {recipe.seed}",))
    decoder_init = resolve_decoder_init(options, checkpoint)
    if options.on_max_depth == "rescale" and decoder_init != "keep":
        raise FinetuneError(
            f"{recipe.where('model.on_max_depth')}: model.on_max_depth is rescale, but {checkpoint.source} is "
            f"{checkpoint.kind}, so decoder_init is {decoder_init} and there are no predictions to scale; expected "
            "refuse."
        )
    model, coverage = start_model(
        checkpoint,
        decoder_init,
        max_depth_m=camera.head_max_depth_m,
        seed=recipe.seed,
        where=recipe.where("model.max_depth_m" if options.head == "metric" else "model.head"),
        rescale=options.on_max_depth == "rescale",
        activation=options.head_activation,
    )
    model.camera = camera.camera
    described = (
        f"{checkpoint.source}: {checkpoint.format}, {checkpoint.kind} {checkpoint.encoder}, {coverage}; decoder_init "
        f"{decoder_init}; {license_sentence(checkpoint.license)}"
    )
    rescaled = _note_rescaling(checkpoint, decoder_init, camera.head_max_depth_m)
    return model, Origin(
        loaded=LOADED[decoder_init],
        notes=(
            *checkpoint.notes,
            *rescaled,
            *_note_missing_lens(checkpoint, camera),
            *_note_other_size(recipe, checkpoint, decoder_init),
        ),
        details=(described,),
    )


def _note_frozen_encoder(recipe: Recipe, model: DepthModel) -> tuple[str, ...]:
    """What a loss that compares features costs, where there is one."""
    if not any(term.loss.of_features for term in recipe.training_terms):
        return ()
    values = sum(parameter.numel() for parameter in model.encoder_parameters())
    return (
        f"loss feature: each step also runs the encoder that the run starts from, a second forward of "
        f"{model.encoder_name} without gradients; its {values:,} values take another {values * 4 / 1e6:,.0f} MB",
    )


def _note_missing_lens(checkpoint: Checkpoint, camera: RunCamera) -> tuple[str, ...]:
    """A note on the rows of a base that predicts meters of its own lens, if no training frame has a camera."""
    if checkpoint.camera is None or not checkpoint.camera.is_canonical or camera.camera is not None:
        return ()
    return (
        f"{checkpoint.source} predicts meters of a lens of {checkpoint.camera.focal_px:.4g} px, and data.train has no "
        "intrinsics: the rows base and base_fitted_scale take every frame for one of that lens",
    )


def _note_rescaling(checkpoint: Checkpoint, decoder_init: str, max_depth_m: float | None) -> tuple[str, ...]:
    """A note that a metric base's predictions are scaled, if they are."""
    if checkpoint.activation == "exp" or decoder_init != "keep":
        return ()
    if not checkpoint.max_depth_m or max_depth_m in (None, checkpoint.max_depth_m):
        return ()
    assert max_depth_m is not None
    return (
        f"{checkpoint.source}: max depth {checkpoint.max_depth_m:g} m becomes {max_depth_m:g} m, so every prediction "
        f"starts {max_depth_m / checkpoint.max_depth_m:.4g} times as far",
    )


def _fit_to_pixels(
    recipe: Recipe,
    checkpoint: Checkpoint | None,
    model: DepthModel,
    preprocessing: Preprocessing,
    device: torch.device,
) -> tuple[Baselines | None, dict[str, Tensor] | None, tuple[str, ...]]:
    """
    Look at labeled pixels, and solve for the last layer if ``decoder_init`` asks for it.

    Returns:
        The baselines, the last layer that was solved for, and what was wrong with images that could not be read.
    """
    options = recipe.model
    canonical = model.camera if model.camera is not None and model.camera.is_canonical else None
    pixels = collect_labeled_pixels(
        (whole_network(checkpoint) if checkpoint and checkpoint.has_head else model).to(device),
        readers_of(recipe.data.train),
        preprocessing,
        max_depth_m=options.max_depth_m,
        images=MAX_IMAGES,
        images_with_features=CALIBRATION_IMAGES,
        skip_bad=recipe.data.on_bad_sample == "skip",
        canonical_px=canonical.focal_px if canonical else None,
    )
    kind = checkpoint.kind if checkpoint and checkpoint.has_head else None
    if checkpoint and _is_kind_in_doubt(checkpoint) and "checkpoint_kind" not in recipe.data.accept:
        require_kind(pixels, checkpoint.kind, checkpoint.source, recipe.where("model.checkpoint_kind"))
    if options.head != "metric":
        return None, None, pixels.skipped
    assert model.max_depth_m is not None
    solved = None
    if resolve_decoder_init(options, checkpoint) == "calibrated":
        solve_last_layer(model.head.last, pixels, model.max_depth_m, model.activation)
        solved = {name: tensor.clone() for name, tensor in model.head.last.state_dict().items()}
    # The range of the first protocol, which also chooses best/.
    protocol, *_ = make_protocols(recipe)
    baselines = fit_baselines(pixels, kind, min_depth_m=protocol.min_depth_m, max_depth_m=protocol.max_depth_m)
    return baselines, solved, pixels.skipped


def with_auto_resolved(
    recipe: Recipe, checkpoint: Checkpoint | None, mixed_precision: str, camera: RunCamera
) -> Recipe:
    """The recipe as it runs: what each ``auto`` came to is written out."""
    of_model: dict[str, Any] = {"decoder_init": resolve_decoder_init(recipe.model, checkpoint)}
    if checkpoint:
        of_model |= {"checkpoint_version": checkpoint.version, "encoder": checkpoint.encoder}
    if checkpoint and checkpoint.has_head:
        of_model["checkpoint_kind"] = checkpoint.kind
    of_run: dict[str, Any] = {"precision": "fp32" if mixed_precision == "no" else mixed_precision}
    of_evaluation: dict[str, Any] = {"protocols": recipe.protocols}
    data = recipe.data
    if camera.canonical:
        data = replace(data, camera=replace(data.camera, focal_px=camera.canonical.focal_px))
    return replace(
        recipe,
        data=data,
        model=replace(recipe.model, **of_model),
        run=replace(recipe.run, **of_run),
        evaluation=replace(recipe.evaluation, **of_evaluation),
    )


def make_protocols(recipe: Recipe) -> list[Protocol]:
    """Those of the recipe; by the first ``best/`` is chosen."""
    found = []
    for name in recipe.protocols:
        settings = protocol_settings(name)
        ends = zip((settings.min_depth_m, settings.max_depth_m), recipe.depth_range_m, strict=True)
        min_depth_m, max_depth_m = (of_recipe if fixed is None else fixed for fixed, of_recipe in ends)
        kind = recipe.model.head
        found.append(Protocol(name=name, min_depth_m=min_depth_m, max_depth_m=max_depth_m, kind=kind))
    return found


def weights_metadata(startup: Startup) -> dict[str, object]:
    """What every weights file of the run says of itself; kind, encoder and max depth are added from the network."""
    return {
        "name": startup.recipe.name,
        "preprocessing": startup.preprocessing.to_mapping(),
        "base": startup.base,
        "recipe_sha256": digest(recipe_mapping(startup.recipe)),
    }


def total_steps(recipe: Recipe, processes: int) -> int:
    """
    Returns:
        Optimizer steps of the whole run; an epoch shows as many samples as there are frames.

    Raises:
        FinetuneError: the rate would not reach its peak within them, or not all batches to repeat be seen.
    """
    if recipe.run.steps is not None:
        return recipe.run.steps
    assert recipe.run.epochs is not None
    frames = sum(len(reader) for reader in readers_of(recipe.data.train))
    steps = -(-recipe.run.epochs * frames // (recipe.run.batch_size * recipe.run.accumulate * processes))
    run = f"{count_noun(recipe.run.epochs, 'epoch')} of {count_noun(frames, 'frame')} are {count_noun(steps, 'step')}"
    if recipe.optim.warmup_steps is not None and recipe.optim.warmup_steps >= steps:
        raise FinetuneError(
            f"{recipe.where('optim.warmup_steps')}: optim.warmup_steps is {recipe.optim.warmup_steps}, but "
            f"{run}; expected fewer, such as {steps // 10}."
        )
    if (recipe.run.overfit_batches or 0) > steps:
        raise FinetuneError(
            f"{recipe.where('run.overfit_batches')}: run.overfit_batches is {recipe.run.overfit_batches}, but "
            f"{run}; expected fewer, such as 1."
        )
    return steps


def readers_of(entries: Iterable[DataEntry]) -> list[Reader]:
    """The readers of data entries, in order."""
    return [entry.source for entry in entries]
