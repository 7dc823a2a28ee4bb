"""Recipe -> model, loaders, losses, optimizer; the one file that knows every part."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor

from finetune.alarms import Alarms, Movement
from finetune.averaging import AverageWeights
from finetune.baselines import (
    MOST_IMAGES,
    Baselines,
    collect_labeled_pixels,
    fit_baselines,
    require_kind,
)
from finetune.batches import Batch, Range, Reader, StepBatches, TrainingSamples, training_batches
from finetune.decoder_init import CALIBRATION_IMAGES, drawn_model, resolved_decoder_init, solve_last_layer, start_model
from finetune.errors import CheckpointError, FinetuneError, first_line
from finetune.evaluation import (
    Answer,
    Asked,
    Evaluation,
    Fitted,
    Row,
    ValidationSamples,
    evaluate,
    network_answer,
    one_answer,
)
from finetune.loop import Run
from finetune.metrics import METRICS
from finetune.networks.depth_model import DepthModel
from finetune.networks.lora import add_adapters, lora_config
from finetune.paths import is_file
from finetune.preprocessing import Preprocessing
from finetune.protocol_settings import protocol_settings
from finetune.protocols import Protocol
from finetune.recipe import ModelOptions, Recipe, recipe_mapping
from finetune.report import RunLog
from finetune.run_folder import RunFolder, digest
from finetune.schedules import warmup_within
from finetune.shown_frames import ShownFrames
from finetune.weights import Checkpoint, license_sentence, read_checkpoint, whole_network

if TYPE_CHECKING:
    from finetune.augment import Augmentation


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a run starts from, before any process knows of the others' work.

    Attributes:
        checkpoint: None where every weight was drawn.
        baselines: None for a relative head, whose baselines are aligned per image like its answers.
        solved: the last layer as it was solved for before step 1; None where it was not.
    """

    checkpoint: Checkpoint | None
    preprocessing: Preprocessing
    model: DepthModel
    baselines: Baselines | None
    notes: tuple[str, ...]
    solved: Mapping[str, Tensor] | None = None

    @property
    def base(self) -> dict[str, str | None]:
        """What the model is made from, as weights files say it."""
        if self.checkpoint is None:
            return {"source": None, "sha256": None, "license": None}
        return {
            "source": self.checkpoint.source,
            "sha256": self.checkpoint.sha256,
            "license": self.checkpoint.license,
        }


def start(recipe: Recipe, accelerator: Accelerator) -> Start:
    """
    Read the checkpoint, hold it against labeled pixels, and make the model that training starts with.

    The main process alone looks at the pixels; the others get the baselines, and the weights when they are wrapped.

    Raises:
        CheckpointError: the file is not what the recipe says, or cannot start a model.
        DataError: no training pixel is usable.
    """
    checkpoint = _checkpoint(recipe)
    preprocessing = _preprocessing(recipe, checkpoint)
    model, notes = _model(recipe, checkpoint)
    notes = (*notes, *scored_without_unit(recipe))
    shared: list[Any] = [None, None, ()]
    # A relative head needs no baselines; they are looked at all the same where the checkpoint's kind is in doubt.
    if accelerator.is_main_process and (recipe.model.head == "metric" or _in_doubt(checkpoint)):
        shared = [*_baselines(recipe, checkpoint, model, preprocessing, accelerator.device)]
    broadcast_object_list(shared)
    baselines, solved, skipped = shared
    if skipped:
        notes = (*notes, f"left out of the baselines, since they cannot be read: {'; '.join(skipped)}")
    if baselines:
        notes = (*notes, str(baselines))
    return Start(
        checkpoint=checkpoint,
        preprocessing=preprocessing,
        model=model,
        baselines=baselines,
        notes=notes,
        solved=solved,
    )


def scored_without_unit(recipe: Recipe) -> tuple[str, ...]:
    """That meters in the tables are none, where the labels that are scored are of unknown scale and shift."""
    without = [
        f"data.val.{place}"
        for place, entry in enumerate(recipe.data.val)
        if getattr(entry.source, "depth_is", None) == "affine_inverse"
    ]
    if not without:
        return ()
    return (
        f"{' and '.join(without)}: labels of unknown scale and shift, each map read as depth from 1 to 10: what is "
        "scored on them says how right the shape is, and its meters and millimeters are no meters",
    )


def _preprocessing(recipe: Recipe, checkpoint: Checkpoint | None) -> Preprocessing:
    """That of the run: the recipe's size, and the colors that the checkpoint has seen, where it says them."""
    wanted = Preprocessing(input_size=recipe.data.input_size, image_levels=recipe.data.image_levels)
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


def _size_kept(recipe: Recipe, checkpoint: Checkpoint, decoder_init: str) -> tuple[str, ...]:
    """That a network that is kept whole is fed another size than it was trained at, where it is."""
    trained, fed = checkpoint.input_size, recipe.data.input_size
    if decoder_init != "keep" or trained in (None, fed):
        return ()
    assert trained is not None
    return (
        f"{checkpoint.source} was trained at {trained[0]}x{trained[1]} (height x width), data.input_size is "
        f"{fed[0]}x{fed[1]}: its answers change with the size, and training starts from those at data.input_size",
    )


def _in_doubt(checkpoint: Checkpoint | None) -> bool:
    """Whether a checkpoint's kind is somebody's word; a file of ours says it itself, whatever the frames look like."""
    return checkpoint is not None and checkpoint.answers and checkpoint.format != "native"


def _checkpoint(recipe: Recipe) -> Checkpoint | None:
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


def _model(recipe: Recipe, checkpoint: Checkpoint | None) -> tuple[DepthModel, tuple[str, ...]]:
    """The model before its last layer is solved for, and sentences about where its weights come from."""
    options = recipe.model
    if checkpoint is None:
        model = drawn_model(options.encoder, options.head_max_depth_m, recipe.seed)
        return model, (f"{options.encoder}: every weight drawn from seed {recipe.seed}",)
    decoder_init = resolved_decoder_init(options.decoder_init, options.head, checkpoint.kind)
    if options.on_max_depth == "rescale" and decoder_init != "keep":
        raise FinetuneError(
            f"{recipe.where('model.on_max_depth')}: model.on_max_depth is rescale, but {checkpoint.source} is "
            f"{checkpoint.kind}, so decoder_init is {decoder_init} and there are no answers to scale; expected refuse."
        )
    model, coverage = start_model(
        checkpoint,
        decoder_init,
        max_depth_m=options.head_max_depth_m,
        seed=recipe.seed,
        where=recipe.where("model.max_depth_m" if options.head == "metric" else "model.head"),
        rescale=options.on_max_depth == "rescale",
    )
    described = (
        f"{checkpoint.source}: {checkpoint.format}, {checkpoint.kind} {checkpoint.encoder}, {coverage}; decoder_init "
        f"{decoder_init}; {license_sentence(checkpoint.license)}"
    )
    return model, (
        *checkpoint.notes,
        described,
        *_rescaled(checkpoint, decoder_init, options.head_max_depth_m),
        *_size_kept(recipe, checkpoint, decoder_init),
    )


def _rescaled(checkpoint: Checkpoint, decoder_init: str, max_depth_m: float | None) -> tuple[str, ...]:
    """That a metric base's answers are scaled, where they are."""
    if decoder_init != "keep" or not checkpoint.max_depth_m or max_depth_m in (None, checkpoint.max_depth_m):
        return ()
    assert max_depth_m is not None
    return (
        f"{checkpoint.source}: max depth {checkpoint.max_depth_m:g} m becomes {max_depth_m:g} m, so every answer "
        f"starts {max_depth_m / checkpoint.max_depth_m:.4g} times as far",
    )


def _baselines(
    recipe: Recipe,
    checkpoint: Checkpoint | None,
    model: DepthModel,
    preprocessing: Preprocessing,
    device: torch.device,
) -> tuple[Baselines | None, dict[str, Tensor] | None, tuple[str, ...]]:
    """
    Look at labeled pixels; where the last layer is to be solved for, solve it.

    Returns:
        The baselines, the last layer that was solved for, and what was wrong with images that could not be read.
    """
    options = recipe.model
    pixels = collect_labeled_pixels(
        (whole_network(checkpoint) if checkpoint and checkpoint.answers else model).to(device),
        _readers(recipe.data.train),
        preprocessing,
        max_depth_m=options.max_depth_m,
        images=MOST_IMAGES,
        images_with_features=CALIBRATION_IMAGES,
        skip_bad=recipe.data.on_bad_sample == "skip",
    )
    kind = checkpoint.kind if checkpoint and checkpoint.answers else None
    if checkpoint and _in_doubt(checkpoint) and "checkpoint_kind" not in recipe.data.accept:
        require_kind(pixels, checkpoint.kind, checkpoint.source, recipe.where("model.checkpoint_kind"))
    if options.head == "relative":
        return None, None, pixels.skipped
    assert options.max_depth_m is not None
    solved = None
    if resolved_decoder_init(options.decoder_init, options.head, kind) == "calibrated":
        solve_last_layer(model.head.last, pixels, options.max_depth_m)
        solved = {name: tensor.clone() for name, tensor in model.head.last.state_dict().items()}
    # As the first protocol scores, by which best/ is chosen.
    protocol, *_ = make_protocols(recipe)
    baselines = fit_baselines(pixels, kind, min_depth_m=protocol.min_depth_m, max_depth_m=protocol.max_depth_m)
    return baselines, solved, pixels.skipped


def resolved(recipe: Recipe, checkpoint: Checkpoint | None, mixed_precision: str) -> Recipe:
    """The recipe as it runs: what each ``auto`` came to is written out."""
    kind = checkpoint.kind if checkpoint else None
    of_model: dict[str, Any] = {
        "decoder_init": resolved_decoder_init(recipe.model.decoder_init, recipe.model.head, kind)
    }
    if checkpoint:
        of_model |= {"checkpoint_version": checkpoint.version, "encoder": checkpoint.encoder}
    if checkpoint and checkpoint.answers:
        of_model["checkpoint_kind"] = checkpoint.kind
    of_run: dict[str, Any] = {"precision": "fp32" if mixed_precision == "no" else mixed_precision}
    of_evaluation: dict[str, Any] = {"protocols": recipe.protocols}
    written_out = replace(
        recipe,
        model=replace(recipe.model, **of_model),
        run=replace(recipe.run, **of_run),
        evaluation=replace(recipe.evaluation, **of_evaluation),
    )
    object.__setattr__(written_out, "places", recipe.places)
    return written_out


def make_run(
    recipe: Recipe, accelerator: Accelerator, begin: Start, folder: RunFolder, *, resume: bool = False, log: bool = True
) -> Run:
    """
    Everything a run consists of, at the step it goes on from.

    Args:
        recipe: as resolved.
        begin: what ``start`` made of it.
        folder: prepared.
        resume: go on from its newest resume point, if there is one.
        log: the main process writes what happens into the folder; without it nothing is written.
    """
    network = begin.model
    network.set_gradient_checkpointing(recipe.run.gradient_checkpointing)
    notes = [_choose_trained(network, recipe)]
    network.to(accelerator.device)
    network.to(memory_format=torch.channels_last)
    average = AverageWeights(network, recipe.optim.ema_decay) if recipe.optim.ema_decay else None
    model, optimizer = accelerator.prepare(network, make_optimizer(network, recipe))
    if average:
        # The main process alone solved for the last layer; wrapped, the network is its own in all of them.
        average.restart(network)
    if recipe.run.compile:
        # In place: what is saved and evaluated stays the network itself, under its own names.
        model.compile()
    protocol, *_ = make_protocols(recipe)
    chooses = recipe.choosing_entries
    validation = ValidationSamples(
        _readers(chooses.values()), begin.preprocessing, [protocol.settings.image_crop], names=list(chooses)
    )
    alarms = Alarms(
        metric=recipe.evaluation.best,
        max_depth_m=network.max_depth_m,
        warmup_steps=warmup_within(recipe.optim.warmup_steps, total_steps(recipe, accelerator.num_processes)),
        movement=_movement(network, average, validation) if accelerator.is_main_process else None,
    )
    run = Run(
        recipe=recipe,
        accelerator=accelerator,
        folder=folder,
        model=model,
        network=network,
        optimizer=optimizer,
        preprocessing=begin.preprocessing,
        validation=validation,
        protocol=protocol,
        metadata=weights_metadata(recipe, begin),
        total_steps=total_steps(recipe, accelerator.num_processes),
        alarms=alarms,
        free_rows=lambda: free_rows(recipe, accelerator, begin),
        average=average,
        notes=notes,
    )
    if resume:
        run.resume()
    run.batches = make_batches(recipe, accelerator, begin.preprocessing, run.step)
    if log and accelerator.is_main_process:
        run.log = RunLog(
            folder,
            log_columns(run),
            step=run.step,
            total_steps=run.total_steps,
            validation=validation,
            max_depth_m=recipe.model.max_depth_m or recipe.depth_range_m[1],
            pending=run.pending,
        )
    return run


def _choose_trained(network: DepthModel, recipe: Recipe) -> str:
    """
    Freeze what is not trained, and put adapters where they are asked for.

    Returns:
        How many values are trained in which part, as a sentence.

    Raises:
        FinetuneError: there are fewer blocks than are to be adapted, or nothing of the head is trained.
    """
    options = recipe.model
    if options.train == "decoder":
        for parameter in network.encoder_parameters():
            parameter.requires_grad_(False)
    elif options.train == "lora":
        blocks = len(network.encoder.blocks)
        if options.lora.last_blocks and options.lora.last_blocks > blocks:
            raise FinetuneError(
                f"{recipe.where('model.lora.last_blocks')}: model.lora.last_blocks is {options.lora.last_blocks}, but "
                f"encoder {network.encoder_name} has {blocks} blocks; expected at most that many."
            )
        add_adapters(network, lora_config(blocks, **vars(options.lora)), recipe.seed)
    counts = {part: [0, 0] for part in ("encoder", "decoder", "head")}
    for name, parameter in network.named_parameters():
        of_part = counts[name.partition(".")[0]]
        of_part[1] += parameter.numel()
        of_part[0] += parameter.numel() if parameter.requires_grad else 0
    if not counts["head"][0]:
        raise FinetuneError("Nothing of the head is trained, so nothing would be learned. Set model.train: decoder.")
    told = ", ".join(f"{part} {trained:,} of {whole:,}" for part, (trained, whole) in counts.items())
    return f"model.train {options.train}: trained values: {told}"


def _movement(network: DepthModel, average: AverageWeights | None, validation: ValidationSamples) -> Movement:
    """From where the run starts, which a resumed one passes through again before it reads its resume point."""
    first = validation[0]
    height, width = first.sample.depth_m.shape
    network.eval()
    answer = network_answer(average.network if average else network)
    movement = Movement(network, lambda: one_answer(answer, first.image, (height, width)))
    network.train()
    return movement


def make_augmentation(recipe: Recipe) -> Augmentation:
    """
    Raises:
        FinetuneError: the library that is installed cannot do it.
    """
    # albumentations takes seconds to import, and only what trains needs it.
    try:
        from finetune.augment import Augmentation

        told = recipe.augment
        return Augmentation(flip=told.flip, color=told.color, color_strength=told.color_strength, degrade=told.degrade)
    except (TypeError, ValueError, AttributeError, ImportError) as error:
        # AlbumentationsX is another library that is imported by the same name, with other arguments.
        raise FinetuneError(
            f"augment: the albumentations that is installed here is not the one that is meant ({first_line(error)}). "
            "Call: pip uninstall albumentationsx albumentations, then pip install 'albumentations>=2.0.8'."
        ) from error


def make_batches(
    recipe: Recipe, accelerator: Accelerator, preprocessing: Preprocessing, first_step: int
) -> Iterator[Batch]:
    """This process's training batches, without end, from ``first_step`` on."""
    samples = TrainingSamples(
        _readers(recipe.data.train),
        [entry.weight for entry in recipe.data.train],
        preprocessing=preprocessing,
        augmentation=make_augmentation(recipe),
        ranges=[_range(recipe.model, entry.out_of_range) for entry in recipe.data.train],
        seed=recipe.seed,
        skip_bad=recipe.data.on_bad_sample == "skip",
    )
    batches = StepBatches(
        first_step=first_step,
        batch_size=recipe.run.batch_size,
        accumulate=recipe.run.accumulate,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        repeated_steps=recipe.run.overfit_batches,
    )
    # Not given to prepare: its iterator would draw from the global generator, and the bits would differ on resume.
    on_gpu = accelerator.device.type == "cuda"
    return training_batches(samples, batches, workers=recipe.data.workers, pin_memory=on_gpu)


def _range(options: ModelOptions, out_of_range: str) -> Range:
    """What training sees of depth beyond the range; the inverse of an infinite depth is 0."""
    if out_of_range == "ignore":
        return Range(max_depth_m=options.max_depth_m)
    ceiling_m = math.inf if options.head == "relative" else options.max_depth_m
    return Range(max_depth_m=options.max_depth_m, ceiling_m=ceiling_m)


def make_optimizer(network: DepthModel, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW with a rate for the encoder and one for decoder and head; biases, norms and embeddings do not decay."""
    optim = recipe.optim
    rates = {"lr": optim.lr, "lr_decoder": optim.lr_decoder}
    members: dict[tuple[str, float], list[torch.nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            rate = "lr" if name.startswith("encoder.") else "lr_decoder"
            decays = parameter.ndim > 1 and not name.endswith(("pos_embed", "cls_token"))
            members.setdefault((rate, optim.weight_decay if decays else 0.0), []).append(parameter)
    groups = [
        {"params": parameters, "lr": rates[rate], "base_lr": rates[rate], "rate": rate, "weight_decay": decay}
        for (rate, decay), parameters in members.items()
    ]
    fused = next(network.parameters()).device.type in ("cpu", "cuda")
    return torch.optim.AdamW(groups, betas=optim.betas, fused=fused)


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
    frames = sum(len(reader) for reader in _readers(recipe.data.train))
    steps = -(-recipe.run.epochs * frames // (recipe.run.batch_size * recipe.run.accumulate * processes))
    if recipe.optim.warmup_steps is not None and recipe.optim.warmup_steps >= steps:
        raise FinetuneError(
            f"{recipe.where('optim.warmup_steps')}: optim.warmup_steps is {recipe.optim.warmup_steps}, but "
            f"{recipe.run.epochs} epochs of {frames} frames are {steps} steps; expected fewer, such as {steps // 10}."
        )
    if (recipe.run.overfit_batches or 0) > steps:
        raise FinetuneError(
            f"{recipe.where('run.overfit_batches')}: run.overfit_batches is {recipe.run.overfit_batches}, but "
            f"{recipe.run.epochs} epochs of {frames} frames are {steps} steps; expected fewer, such as 1."
        )
    return steps


def log_columns(run: Run) -> list[str]:
    """Columns of ``metrics.csv``, besides the step."""
    losses = [f"loss_{name}" for name in run.loss_names]
    return ["loss", *losses, "grad_norm", *run.rates(), "images_per_second", *(f"val_{name}" for name in METRICS)]


def weights_metadata(recipe: Recipe, begin: Start) -> dict[str, Any]:
    """What every weights file of the run says of itself; kind, encoder and max depth are added from the network."""
    return {
        "name": recipe.name,
        "preprocessing": begin.preprocessing.to_mapping(),
        "base": begin.base,
        "recipe_sha256": digest(recipe_mapping(recipe)),
    }


def evaluate_with_baselines(
    recipe: Recipe, accelerator: Accelerator, begin: Start, weights: Path, last: Path
) -> tuple[list[Evaluation], ShownFrames]:
    """The tables at the end of a run: the baselines and the weights, in one pass over the same pixels."""
    network = whole_network(read_checkpoint(str(weights))).to(accelerator.device)
    answer = network_answer(network)
    of_last = last_answer(weights, last, answer, accelerator.device)
    return evaluate_answer(recipe, accelerator, begin, "finetuned", answer, of_last)


def last_answer(best: Path, last: Path, of_best: Answer, device: torch.device) -> Answer | None:
    """
    Args:
        best, last: weights files of one run.
        of_best: the answer of the first.
        device: to use.

    Returns:
        The answer of the last weights, which is ``of_best`` where both are of one step; None where there are none.

    Raises:
        CheckpointError: they are damaged.
    """
    if not is_file(last):
        return None
    checkpoint = read_checkpoint(str(last))
    if checkpoint.metadata.get("step") == read_checkpoint(str(best)).metadata.get("step"):
        return of_best
    return network_answer(whole_network(checkpoint).to(device))


def evaluate_answer(
    recipe: Recipe, accelerator: Accelerator, begin: Start, name: str, answer: Answer, of_last: Answer | None = None
) -> tuple[list[Evaluation], ShownFrames]:
    """
    Args:
        recipe: its ``data.val``, but for the entry that only chooses, is scored by its protocols.
        accelerator: all its processes must call.
        begin: gives the baselines, and what the network sees of an image.
        name: row of the table.
        answer: of this row.
        of_last: of the row ``last``; None: there is no such row.

    Returns:
        The answers beside the baselines, a table for each protocol; and the frames to look at under the first.
    """
    rows = free_rows(recipe, accelerator, begin)
    if begin.solved:
        rows["calibrated_start"] = network_answer(_calibrated_start(recipe, begin).to(accelerator.device))
    rows[name] = answer
    if of_last:
        rows["last"] = of_last
    protocols = make_protocols(recipe)
    crops = [protocol.settings.image_crop for protocol in protocols]
    scored = recipe.scored_entries
    samples = ValidationSamples(_readers(scored.values()), begin.preprocessing, image_crops=crops, names=list(scored))
    shown = {row: rows[row] for row in ("base_fitted_scale", name) if row in rows}
    evaluations = evaluate(
        accelerator, samples, rows, protocols, workers=recipe.data.workers, batch_size=recipe.run.batch_size
    )
    return evaluations, ShownFrames(samples=samples, rows=shown, protocol=protocols[0])


def free_rows(recipe: Recipe, accelerator: Accelerator, begin: Start) -> dict[str, Row]:
    """What costs nothing but a fit: constants, and the base."""
    rows: dict[str, Row] = {"constant_median": _constant(begin.baselines)}
    if begin.baselines:
        rows["best_constant"] = _everywhere(begin.baselines.best_m)
    if begin.checkpoint and begin.checkpoint.answers:
        base = network_answer(whole_network(begin.checkpoint).to(accelerator.device))
        if begin.checkpoint.kind == "metric":
            rows["base"] = base
        # In a relative run it is left to the protocol to align it.
        fitted = begin.baselines and Fitted(answer=base, depth_m=begin.baselines.base_depth_m)
        rows["base_fitted_scale"] = fitted or base
    return rows


def _calibrated_start(recipe: Recipe, begin: Start) -> DepthModel:
    """The network as it was before step 1, made anew: the one of ``begin`` may have been trained since."""
    network, _ = _model(recipe, begin.checkpoint)
    assert begin.solved is not None
    network.head.last.load_state_dict(begin.solved)
    return network.eval()


def _constant(baselines: Baselines | None) -> Answer:
    """The training median everywhere; for a relative run any number is the same after the alignment."""
    return _everywhere(baselines.median_m if baselines else 1.0)


def _everywhere(value: float) -> Answer:
    """One number for every pixel."""

    def answer(asked: Sequence[Asked]) -> list[Any]:
        return [torch.full(one.size, value).numpy() for one in asked]

    return answer


def _readers(entries: Iterable[Any]) -> list[Reader]:
    return [entry.source for entry in entries]
