"""Recipe -> model, loaders, losses, optimizer; the one file that knows every part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from finetune.augment import Augmentation
from finetune.baselines import (
    MOST_IMAGES,
    Baselines,
    LabeledPixels,
    collect_labeled_pixels,
    fit_baselines,
    require_kind,
)
from finetune.batches import Batch, Reader, StepBatches, TrainingSamples, training_batches
from finetune.decoder_init import CALIBRATION_IMAGES, resolved_decoder_init, solve_last_layer, start_model
from finetune.environment import digest
from finetune.errors import FinetuneError
from finetune.evaluation import Answer, Evaluation, ValidationSamples, evaluate, network_answer
from finetune.loop import Run
from finetune.metrics import METRICS
from finetune.networks.depth_model import DepthModel
from finetune.preprocessing import Preprocessing
from finetune.protocols import Protocol
from finetune.recipe import Recipe, recipe_mapping
from finetune.report import RunLog
from finetune.run_folder import RunFolder
from finetune.weights import Checkpoint, read_checkpoint, whole_network


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a run starts from, before any process knows of the others' work."""

    checkpoint: Checkpoint
    preprocessing: Preprocessing
    model: DepthModel
    baselines: Baselines
    notes: tuple[str, ...]


def start(recipe: Recipe, accelerator: Accelerator) -> Start:
    """
    Read the checkpoint, hold it against labeled pixels, and make the model that training starts with.

    The main process alone looks at the pixels; the others get the baselines, and the weights when they are wrapped.

    Raises:
        CheckpointError: the file is not what the recipe says, or cannot start a model.
        DataError: no training pixel is usable.
    """
    options = recipe.model
    checkpoint = read_checkpoint(
        options.checkpoint,
        kind=options.checkpoint_kind,
        max_depth_m=options.checkpoint_max_depth_m,
        encoder=options.encoder,
        where=recipe.where("model.checkpoint"),
    )
    preprocessing = Preprocessing(input_size=recipe.data.input_size)
    decoder_init = resolved_decoder_init(options.decoder_init, checkpoint.kind)
    model, coverage = start_model(
        checkpoint,
        decoder_init,
        max_depth_m=options.max_depth_m,
        seed=recipe.seed,
        where=recipe.where("model.max_depth_m"),
    )
    shared: list[Any] = [None, None]
    if accelerator.is_main_process:
        pixels = _labeled_pixels(recipe, checkpoint, preprocessing, accelerator.device)
        require_kind(pixels, checkpoint.kind, checkpoint.source, recipe.where("model.checkpoint_kind"))
        if decoder_init == "calibrated":
            solve_last_layer(model.head.last, pixels, options.max_depth_m)
        shared = [fit_baselines(pixels, checkpoint.kind), len(set(pixels.image.tolist()))]
    broadcast_object_list(shared)
    notes = (
        *checkpoint.notes,
        f"{checkpoint.source}: {checkpoint.kind} {checkpoint.encoder}, {coverage}; decoder_init {decoder_init}",
        f"baselines fitted on {shared[1]} training images: median {shared[0].median_m:.3f} m",
    )
    return Start(checkpoint=checkpoint, preprocessing=preprocessing, model=model, baselines=shared[0], notes=notes)


def resolved(recipe: Recipe, checkpoint: Checkpoint, mixed_precision: str) -> Recipe:
    """The recipe as it runs: what each ``auto`` came to is written out."""
    of_model: dict[str, Any] = {
        "checkpoint_kind": checkpoint.kind,
        "encoder": checkpoint.encoder,
        "decoder_init": resolved_decoder_init(recipe.model.decoder_init, checkpoint.kind),
    }
    of_run: dict[str, Any] = {"precision": "fp32" if mixed_precision == "no" else mixed_precision}
    written_out = replace(recipe, model=replace(recipe.model, **of_model), run=replace(recipe.run, **of_run))
    object.__setattr__(written_out, "places", recipe.places)
    return written_out


def make_run(recipe: Recipe, accelerator: Accelerator, begin: Start, folder: RunFolder, *, resume: bool) -> Run:
    """
    Everything a run consists of, at the step it goes on from.

    Args:
        recipe: as resolved.
        begin: what ``start`` made of it.
        folder: prepared.
        resume: go on from its newest resume point, if there is one.
    """
    network = begin.model
    network.set_gradient_checkpointing(recipe.run.gradient_checkpointing)
    if recipe.model.train == "decoder":
        for parameter in network.encoder_parameters():
            parameter.requires_grad_(False)
    network.to(accelerator.device)
    network.to(memory_format=torch.channels_last)
    model, optimizer = accelerator.prepare(network, make_optimizer(network, recipe))
    validation = ValidationSamples(_readers(recipe.data.val), begin.preprocessing)
    run = Run(
        recipe=recipe,
        accelerator=accelerator,
        folder=folder,
        model=model,
        network=network,
        optimizer=optimizer,
        preprocessing=begin.preprocessing,
        validation=validation,
        protocol=make_protocol(recipe),
        metadata=weights_metadata(recipe, begin),
        total_steps=total_steps(recipe, accelerator.num_processes),
    )
    newest = folder.newest_checkpoint() if resume else None
    if newest is not None:
        run.load_checkpoint(newest)
    run.batches = make_batches(recipe, accelerator, begin.preprocessing, run.step)
    if accelerator.is_main_process:
        run.log = RunLog(
            folder,
            log_columns(run),
            step=run.step,
            total_steps=run.total_steps,
            validation=validation,
            max_depth_m=recipe.model.max_depth_m,
        )
    return run


def make_batches(
    recipe: Recipe, accelerator: Accelerator, preprocessing: Preprocessing, first_step: int
) -> Iterator[Batch]:
    """This process's training batches, without end, from ``first_step`` on."""
    samples = TrainingSamples(
        _readers(recipe.data.train),
        [entry.weight for entry in recipe.data.train],
        preprocessing=preprocessing,
        augmentation=Augmentation(
            flip=recipe.augment.flip,
            color=recipe.augment.color,
            color_strength=recipe.augment.color_strength,
            degrade=recipe.augment.degrade,
        ),
        max_depth_m=recipe.model.max_depth_m,
        seed=recipe.seed,
    )
    batches = StepBatches(
        first_step=first_step,
        batch_size=recipe.run.batch_size,
        accumulate=recipe.run.accumulate,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
    )
    # Not given to prepare: its iterator would draw from the global generator, and the bits would differ on resume.
    on_gpu = accelerator.device.type == "cuda"
    return training_batches(samples, batches, workers=recipe.data.workers, pin_memory=on_gpu)


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


def make_protocol(recipe: Recipe) -> Protocol:
    """The recipe's ``plain`` protocol."""
    min_depth_m, max_depth_m = recipe.depth_range_m
    return Protocol(min_depth_m=min_depth_m, max_depth_m=max_depth_m)


def total_steps(recipe: Recipe, processes: int) -> int:
    """
    Returns:
        Optimizer steps of the whole run; an epoch shows as many samples as there are frames.

    Raises:
        FinetuneError: the rate would not reach its peak within them.
    """
    if recipe.run.steps is not None:
        return recipe.run.steps
    assert recipe.run.epochs is not None
    frames = sum(len(reader) for reader in _readers(recipe.data.train))
    steps = -(-recipe.run.epochs * frames // (recipe.run.batch_size * recipe.run.accumulate * processes))
    if recipe.optim.warmup_steps >= steps:
        raise FinetuneError(
            f"{recipe.where('optim.warmup_steps')}: optim.warmup_steps is {recipe.optim.warmup_steps}, but "
            f"{recipe.run.epochs} epochs of {frames} frames are {steps} steps; expected fewer, such as {steps // 10}."
        )
    return steps


def log_columns(run: Run) -> list[str]:
    """Columns of ``metrics.csv``, besides the step."""
    losses = [f"loss_{name}" for name in run.loss_names]
    return ["loss", *losses, "grad_norm", *run.rates(), "images_per_second", *(f"val_{name}" for name in METRICS)]


def weights_metadata(recipe: Recipe, begin: Start) -> dict[str, Any]:
    """What every weights file of the run says of itself; kind, encoder and max depth are added from the network."""
    checkpoint = begin.checkpoint
    return {
        "name": recipe.name,
        "preprocessing": begin.preprocessing.to_mapping(),
        "base": {"source": checkpoint.source, "sha256": checkpoint.sha256, "license": checkpoint.license},
        "recipe_sha256": digest(recipe_mapping(recipe)),
    }


def evaluate_with_baselines(recipe: Recipe, accelerator: Accelerator, begin: Start, weights: Path) -> Evaluation:
    """The table at the end of a run: the baselines and the weights, in one pass over the same pixels."""
    protocol = make_protocol(recipe)
    base_answer, trained_answer = (
        network_answer(whole_network(checkpoint).to(accelerator.device))
        for checkpoint in (begin.checkpoint, read_checkpoint(str(weights)))
    )

    def constant(_: torch.Tensor, size: tuple[int, int]) -> Any:
        return torch.full(size, begin.baselines.median_m).numpy()

    def fitted(image: torch.Tensor, size: tuple[int, int]) -> Any:
        return begin.baselines.base_depth_m(base_answer(image, size), protocol.min_depth_m, protocol.max_depth_m)

    answers: dict[str, Answer] = {
        "constant_median": constant,
        "base_fitted_scale": fitted,
        "finetuned": trained_answer,
    }
    samples = ValidationSamples(_readers(recipe.data.val), begin.preprocessing)
    return evaluate(accelerator, samples, answers, protocol, workers=recipe.data.workers)


def _labeled_pixels(
    recipe: Recipe, checkpoint: Checkpoint, preprocessing: Preprocessing, device: torch.device
) -> LabeledPixels:
    return collect_labeled_pixels(
        whole_network(checkpoint).to(device),
        _readers(recipe.data.train),
        preprocessing,
        max_depth_m=recipe.model.max_depth_m,
        images=MOST_IMAGES,
        images_with_features=CALIBRATION_IMAGES,
    )


def _readers(entries: Sequence[Any]) -> list[Reader]:
    return [entry.source for entry in entries]
