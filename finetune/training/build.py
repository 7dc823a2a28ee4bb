"""Makes a run out of a recipe: the one file that knows every part."""

from __future__ import annotations

import copy
import math
from collections.abc import Generator
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator
from torch import nn

from finetune.data.dataloader import Batch, training_batches
from finetune.data.samplers import DistributedBatchSampler
from finetune.data.training_dataset import CanonicalLabels, DepthRangePolicy, StrongChanges, TrainingSamples, Zoom
from finetune.data.validation_dataset import ValidationSamples
from finetune.evaluation.evaluator import predict_one, predict_with_network
from finetune.evaluation.metrics import METRICS
from finetune.models.depth_model import DepthModel
from finetune.models.lora import add_adapters, lora_config
from finetune.recipe.load import recipe_mapping
from finetune.recipe.run_dir import RunFolder, lasting_digest
from finetune.recipe.schema import ModelOptions, Recipe
from finetune.training.bad_samples import BadSampleWatch
from finetune.training.cameras import RunCamera
from finetune.training.checkpointing import ResumePoints
from finetune.training.data_loading import WaitWatch, choose_loading
from finetune.training.ema import AverageWeights
from finetune.training.evaluate import baseline_rows
from finetune.training.monitors import Monitors, Movement
from finetune.training.optimizer import make_optimizer, warmup_within
from finetune.training.run import Run
from finetune.training.run_log import LogEntry, RunLog
from finetune.training.startup import Startup, make_protocols, readers_of, weights_metadata
from finetune.training.stop_signals import StopSignals
from finetune.training.trackers import Trackers
from finetune.training.trainer import Trainer
from finetune.training.validation import Validator
from finetune.training.weights import WeightsWriter
from finetune.utils.errors import FinetuneError, first_line
from finetune.utils.signals import Interrupts
from finetune.utils.text import count_noun

if TYPE_CHECKING:
    from finetune.data.augmentation import Augmentation


def make_run(
    startup: Startup,
    folder: RunFolder,
    *,
    interrupts: Interrupts | None = None,
    resume: bool = False,
    log: bool = True,
) -> Run:
    """
    Everything a run consists of, at the step it goes on from.

    Args:
        startup: its model becomes the one that is trained.
        folder: prepared.
        interrupts: entered by the caller; None: no signal is looked at.
        resume: go on from its newest resume point, if there is one.
        log: the main process writes what happens into the folder; without it nothing is written.
    """
    recipe, accelerator = startup.recipe, startup.accelerator
    trainer, trained = make_trainer(startup, interrupts or Interrupts())
    weights = WeightsWriter(
        options=recipe.model,
        network=trainer.result,
        metadata=weights_metadata(startup),
        writes=accelerator.is_main_process,
    )
    run = Run(
        folder=folder,
        trainer=trainer,
        validator=_make_validator(startup, trainer, weights, folder),
        resume_points=ResumePoints(
            accelerator=accelerator,
            folder=folder,
            total_steps=startup.total_steps,
            recipe_sha256=lasting_digest(recipe_mapping(recipe)),
            keep=recipe.run.keep_checkpoints,
            average=trainer.average,
        ),
        weights=weights,
        details=[trained],
        waits=WaitWatch(choose_loading(recipe.data, accelerator.device)),
    )
    pending = run.resume() if resume else None
    trainer.batches = make_batches(startup, run.step)
    if log and accelerator.is_main_process:
        run.log = run.validator.log = _open_log(run, accelerator, pending)
    return run


def make_trainer(startup: Startup, interrupts: Interrupts) -> tuple[Trainer, str]:
    """
    Returns:
        What takes the steps, still without batches; and a sentence about how many values it trains.
    """
    recipe, accelerator, network = startup.recipe, startup.accelerator, startup.model
    network.set_gradient_checkpointing(recipe.run.gradient_checkpointing)
    frozen = _freeze_start(network, recipe, accelerator.device)
    trained = _choose_trained(network, recipe)
    network.to(accelerator.device)
    network.to(memory_format=torch.channels_last)
    average = AverageWeights(network, recipe.optim.ema_decay) if recipe.optim.ema_decay else None
    model, optimizer = accelerator.prepare(network, make_optimizer(network, recipe))
    if average:
        # Only the main process solved for the last layer. Wrapping the network gave its weights to all processes.
        average.restart(network)
    if recipe.run.compile:
        # In place: what is saved and evaluated stays the network itself, under its own names.
        model.compile()
    samples_of_a_step = recipe.run.batch_size * recipe.run.accumulate * accelerator.num_processes
    trainer = Trainer(
        recipe=recipe,
        accelerator=accelerator,
        model=model,
        network=network,
        optimizer=optimizer,
        preprocessing=startup.preprocessing,
        total_steps=startup.total_steps,
        signals=StopSignals(accelerator, interrupts, accumulate=recipe.run.accumulate),
        bad_samples=BadSampleWatch(
            accelerator, skips=recipe.data.on_bad_sample == "skip", samples_of_a_step=samples_of_a_step
        ),
        frozen=frozen,
        average=average,
    )
    return trainer, trained


def _freeze_start(network: DepthModel, recipe: Recipe, device: torch.device) -> nn.Module | None:
    """A copy of the encoder as the run starts, where a loss compares features with it, also in a run that goes on."""
    if not any(term.loss.of_features for term in recipe.training_terms):
        return None
    encoder = copy.deepcopy(network.encoder).requires_grad_(False).eval()
    encoder.set_grad_checkpointing(False)
    return encoder.to(device).to(memory_format=torch.channels_last)


def _make_validator(startup: Startup, trainer: Trainer, weights: WeightsWriter, folder: RunFolder) -> Validator:
    """With monitors that know where the run starts, which a resumed one is at until it reads its resume point."""
    recipe = startup.recipe
    protocol, *_ = make_protocols(recipe)
    chooses = recipe.choosing_entries
    samples = ValidationSamples(
        readers_of(chooses.values()), startup.preprocessing, [protocol.settings.image_crop], names=list(chooses)
    )
    monitors = Monitors(
        metric=recipe.evaluation.best,
        max_depth_m=trainer.network.end_m,
        warmup_steps=warmup_within(recipe.optim.warmup_steps, trainer.total_steps),
        movement=_watch_movement(trainer, samples) if startup.accelerator.is_main_process else None,
    )
    return Validator(
        trainer=trainer,
        samples=samples,
        protocol=protocol,
        baseline_rows=lambda: baseline_rows(startup),
        monitors=monitors,
        weights=weights,
        folder=folder,
    )


def _open_log(run: Run, accelerator: Accelerator, pending: list[LogEntry] | None) -> RunLog:
    recipe = run.recipe
    return RunLog(
        run.folder,
        log_columns(run.trainer),
        step=run.step,
        total_steps=run.total_steps,
        validation=run.validator.samples,
        max_depth_m=recipe.model.max_depth_m or recipe.depth_range_m[1],
        trackers=Trackers(accelerator, recipe, run.folder),
        tensorboard="tensorboard" in recipe.run.trackers,
        pending=pending,
    )


def _choose_trained(network: DepthModel, recipe: Recipe) -> str:
    """
    Freeze what is not trained, and add adapters if the recipe asks for them.

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
                f"encoder {network.encoder_name} has {count_noun(blocks, 'block')}; expected at most that many."
            )
        add_adapters(network, lora_config(blocks, **vars(options.lora)), recipe.seed)
    counts = {part: [0, 0] for part in ("encoder", "decoder", "head")}
    for name, parameter in network.named_parameters():
        of_part = counts[name.partition(".")[0]]
        of_part[1] += parameter.numel()
        of_part[0] += parameter.numel() if parameter.requires_grad else 0
    if not counts["head"][0]:
        raise FinetuneError("Nothing of the head is trained, so nothing would be learned. Set model.train: decoder.")
    parts = ", ".join(f"{part} {trained:,} of {whole:,}" for part, (trained, whole) in counts.items())
    return f"model.train {options.train}: trained values: {parts}"


def _watch_movement(trainer: Trainer, samples: ValidationSamples) -> Movement:
    first = samples[0]
    height, width = first.sample.depth_m.shape
    trainer.network.eval()
    predict = predict_with_network(trainer.result)
    movement = Movement(trainer.network, lambda: predict_one(predict, first.image, (height, width), first.focal_px))
    trainer.network.train()
    return movement


def make_augmentation(recipe: Recipe) -> tuple[Augmentation, StrongChanges | None]:
    """
    Returns:
        What becomes of every sample; and, where the recipe asks for it, of those that a teacher labeled.

    Raises:
        FinetuneError: the library that is installed cannot do it.
    """
    # albumentations takes seconds to import, and only what trains needs it.
    try:
        from finetune.data.augmentation import Augmentation
        from finetune.data.strong_augmentation import StrongAugmentation

        wanted, strong = recipe.augment, recipe.augment.strong
        augmentation = Augmentation(
            flip=wanted.flip, color=wanted.color, color_strength=wanted.color_strength, degrade=wanted.degrade
        )
        if not strong.is_on:
            return augmentation, None
        labeled = [i for i, reader in enumerate(readers_of(recipe.data.train)) if reader.has_pseudo_labels]
        change = StrongAugmentation(color=strong.color, blur=strong.blur)
        return augmentation, StrongChanges(change=change, cutmix=strong.cutmix, entries=frozenset(labeled))
    except (TypeError, ValueError, AttributeError, ImportError) as error:
        # AlbumentationsX is another library that is imported by the same name, with other arguments.
        raise FinetuneError(
            f"augment: the albumentations that is installed here is not the one that is meant ({first_line(error)}). "
            "Call: pip uninstall albumentationsx albumentations, then pip install 'albumentations>=2.0.8'."
        ) from error


def make_batches(startup: Startup, first_step: int) -> Generator[Batch, None, None]:
    """This process's training batches, without end, from ``first_step`` on."""
    recipe, accelerator = startup.recipe, startup.accelerator
    augmentation, strong = make_augmentation(recipe)
    samples = TrainingSamples(
        readers_of(recipe.data.train),
        [entry.weight for entry in recipe.data.train],
        preprocessing=startup.preprocessing,
        augmentation=augmentation,
        ranges=[_choose_range(recipe.model, entry.out_of_range) for entry in recipe.data.train],
        seed=recipe.seed,
        skip_bad=recipe.data.on_bad_sample == "skip",
        zoom=_choose_zoom(recipe),
        labels=_choose_labels(startup.camera),
        strong=strong,
    )
    batches = DistributedBatchSampler(
        first_step=first_step,
        batch_size=recipe.run.batch_size,
        accumulate=recipe.run.accumulate,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        repeated_steps=recipe.run.overfit_batches,
    )
    # Not given to prepare, whose iterator would draw from the global generator: the bits would differ on resume.
    loading = choose_loading(recipe.data, accelerator.device)
    return training_batches(
        samples, batches, workers=loading.workers, pin_memory=loading.pin_memory, prefetch=loading.prefetch
    )


def _choose_zoom(recipe: Recipe) -> Zoom | None:
    least, most = recipe.augment.zoom
    if (least, most) == (1.0, 1.0):
        return None
    return Zoom(least=least, most=most, divides_depth=recipe.data.camera.mode == "none")


def _choose_labels(camera: RunCamera) -> CanonicalLabels | None:
    if camera.canonical is None:
        return None
    assert camera.head_max_depth_m is not None, "a metric head has one"
    return CanonicalLabels(focal_px=camera.canonical.focal_px, max_depth_m=camera.head_max_depth_m)


def _choose_range(options: ModelOptions, out_of_range: str) -> DepthRangePolicy:
    """What training sees of depth beyond the range. The inverse of an infinite depth is 0."""
    if out_of_range == "ignore":
        return DepthRangePolicy(max_depth_m=options.max_depth_m)
    ceiling_m = math.inf if options.head == "relative" else options.max_depth_m
    return DepthRangePolicy(max_depth_m=options.max_depth_m, ceiling_m=ceiling_m)


def log_columns(trainer: Trainer) -> list[str]:
    """Columns of ``metrics.csv``, besides the step."""
    losses = [f"loss_{name}" for name in trainer.loss_names]
    validation = [f"val_{name}" for name in METRICS]
    return ["loss", *losses, "grad_norm", *trainer.learning_rates, "images_per_second", *validation]
