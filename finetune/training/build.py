"""Recipe -> model, loaders, losses, optimizer; the one file that knows every part."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator

from finetune.data.dataloader import Batch, training_batches
from finetune.data.preprocessing import Preprocessing
from finetune.data.samplers import DistributedBatchSampler
from finetune.data.training_dataset import DepthRangePolicy, TrainingSamples
from finetune.data.validation_dataset import ValidationSamples
from finetune.evaluation.evaluator import predict_one, predict_with_network
from finetune.evaluation.metrics import METRICS
from finetune.models.depth_model import DepthModel
from finetune.models.lora import add_adapters, lora_config
from finetune.recipe.run_dir import RunFolder
from finetune.recipe.schema import ModelOptions, Recipe
from finetune.training.ema import AverageWeights
from finetune.training.evaluate import baseline_rows
from finetune.training.monitors import Monitors, Movement
from finetune.training.optimizer import make_optimizer, warmup_within
from finetune.training.run_log import RunLog
from finetune.training.startup import Startup, make_protocols, readers_of, weights_metadata
from finetune.training.trainer import Run
from finetune.utils.errors import FinetuneError, first_line

if TYPE_CHECKING:
    from finetune.data.augmentation import Augmentation


def make_run(
    recipe: Recipe,
    accelerator: Accelerator,
    begin: Startup,
    folder: RunFolder,
    *,
    resume: bool = False,
    log: bool = True,
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
        readers_of(chooses.values()), begin.preprocessing, [protocol.settings.image_crop], names=list(chooses)
    )
    monitors = Monitors(
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
        monitors=monitors,
        baseline_rows=lambda: baseline_rows(recipe, accelerator, begin),
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
    predict = predict_with_network(average.network if average else network)
    movement = Movement(network, lambda: predict_one(predict, first.image, (height, width)))
    network.train()
    return movement


def make_augmentation(recipe: Recipe) -> Augmentation:
    """
    Raises:
        FinetuneError: the library that is installed cannot do it.
    """
    # albumentations takes seconds to import, and only what trains needs it.
    try:
        from finetune.data.augmentation import Augmentation

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
        readers_of(recipe.data.train),
        [entry.weight for entry in recipe.data.train],
        preprocessing=preprocessing,
        augmentation=make_augmentation(recipe),
        ranges=[_range(recipe.model, entry.out_of_range) for entry in recipe.data.train],
        seed=recipe.seed,
        skip_bad=recipe.data.on_bad_sample == "skip",
    )
    batches = DistributedBatchSampler(
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


def _range(options: ModelOptions, out_of_range: str) -> DepthRangePolicy:
    """What training sees of depth beyond the range; the inverse of an infinite depth is 0."""
    if out_of_range == "ignore":
        return DepthRangePolicy(max_depth_m=options.max_depth_m)
    ceiling_m = math.inf if options.head == "relative" else options.max_depth_m
    return DepthRangePolicy(max_depth_m=options.max_depth_m, ceiling_m=ceiling_m)


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
