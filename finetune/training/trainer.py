"""One optimizer step, read top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from finetune.data.dataloader import Batch
from finetune.data.preprocessing import Preprocessing
from finetune.models.depth_model import DepthModel
from finetune.models.dropout import SampleDropout
from finetune.recipe.schema import Recipe
from finetune.training.bad_samples import BadSampleWatch
from finetune.training.batch_losses import BatchLosses, measure_output
from finetune.training.ema import AverageWeights
from finetune.training.optimizer import rate_factor, warmup_within
from finetune.training.stop_signals import StopSignals
from finetune.utils.errors import ResultError

# With fp16 a gradient beyond its range is routine: the scaler skips the step and halves its factor. Not so forever.
MAX_SKIPPED_STEPS = 20


class StepValues(NamedTuple):
    """Numbers of one step, means over all processes.

    Attributes:
        terms: each loss of the recipe, unweighted. One of a single entry of ``data.train`` is its part of the mean over
            all samples: those of other entries count as 0.
        grad_norm: before clipping.
        head_gradient_norm: after clipping; 0 exactly where no gradient reaches the head.
        output: mean and spread of what a relative network predicts; None for a metric one.
    """

    terms: list[float]
    grad_norm: float
    head_gradient_norm: float
    output: tuple[float, float] | None = None


@dataclass(kw_only=True)
class StepSamples:
    """Counts and names from the micro-batches of a step, in one process.

    Attributes:
        asked, usable: by the kind of count that a loss is a mean over, how many images or pixels there were, and how
            many have, or are, a measurement.
        sources, skipped: as in ``Batch``.
    """

    asked: dict[str, int] = field(default_factory=lambda: {"image": 0, "pixel": 0})
    usable: dict[str, int] = field(default_factory=lambda: {"image": 0, "pixel": 0})
    sources: list[str] = field(default_factory=list)
    skipped: list[tuple[int, str]] = field(default_factory=list)

    def add(self, batch: Batch) -> None:
        """Count a micro-batch."""
        for kind in self.usable:
            self.asked[kind] += batch.asked[kind]
            self.usable[kind] += batch.usable[kind]
        self.sources += batch.sources
        self.skipped += batch.skipped


@dataclass(kw_only=True)
class Trainer:
    """Changes the weights, step by step.

    Attributes:
        model: as prepared by Accelerate; ``network`` is the model itself.
        optimizer: as prepared; its groups carry ``base_lr``.
        total_steps: of the whole run.
        signals: end a step between two micro-batches.
        bad_samples: counts the training samples that cannot be read.
        frozen: the encoder that the run started from, for a loss of features; None where there is no such loss.
        average: of the weights over the steps, which then is what is evaluated and saved; None without one.
        batches: endless, from the current step on.
        step: optimizer steps taken.
        waited_s: how long the last step waited for its batches, seconds.
    """

    recipe: Recipe
    accelerator: Accelerator
    model: nn.Module
    network: DepthModel
    optimizer: torch.optim.Optimizer
    preprocessing: Preprocessing
    total_steps: int
    signals: StopSignals
    bad_samples: BadSampleWatch
    frozen: nn.Module | None = None
    average: AverageWeights | None = None
    batches: Iterator[Batch] = field(default_factory=lambda: iter(()))
    step: int = 0
    waited_s: float = field(default=0.0, init=False)
    _skipped: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        device = self.accelerator.device
        # Moved to the device once: in each step it would be another transfer.
        self._mean = torch.tensor(self.preprocessing.mean, device=device)
        self._std = torch.tensor(self.preprocessing.std, device=device)
        self.terms = self.recipe.training_terms
        self._weights = torch.tensor([term.weight for term in self.terms], device=device)
        self._losses = BatchLosses(
            terms=self.terms, accelerator=self.accelerator, network=self.network, frozen=self.frozen
        )
        # With one micro-batch a step, or two kinds of counts, all are counted before the first backward.
        kinds = {term.reduction for term in self.terms}
        # Sums over the micro-batches of a step.
        self._output = torch.zeros(2, device=device)
        self._counts_first = self.recipe.run.accumulate == 1 or len(kinds) > 1
        self._dropouts = [module for module in self.network.modules() if isinstance(module, SampleDropout)]

    @property
    def result(self) -> DepthModel:
        """The network that the run is about: the average where there is one."""
        return self.average.network if self.average else self.network

    @property
    def samples_asked(self) -> int:
        """How many samples the steps taken so far have asked for, in all processes."""
        return self.step * self.bad_samples.samples_of_a_step

    @property
    def learning_rates(self) -> dict[str, float]:
        """The learning rates of the last step, by their recipe key."""
        return {group["rate"]: group["lr"] for group in self.optimizer.param_groups}

    def take_step(self) -> StepValues:
        """
        One change of the weights; every process must call.

        Raises:
            ResultError: a number is not finite, or too many samples cannot be read; the weights are as before.
            StopAsked: a signal came between two micro-batches; the weights are as before.
        """
        self.waited_s = 0.0
        terms, samples = self.accumulate_gradients()
        grad_norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.optim.clip_norm)
        values = self._require_finite(terms, grad_norm, samples)  # before the weights change; the one sync
        self.bad_samples.require_few(self.step, samples.skipped)
        self._set_learning_rates()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.average:
            self.average.update(self.network, self.step)
        return values

    def accumulate_gradients(self) -> tuple[Tensor, StepSamples]:
        """
        Backward of every micro-batch of the step.

        A loss is a mean over the images that have a valid pixel, or over pixels. One of a single entry is the sum over
        the images, or pixels, of that entry, divided by the count of all, so that an entry weighs as much as it has
        samples, whatever its losses. Over micro-batches and processes the
        divisor is the count of the whole step, so each mean is scaled by its batch's share of that count. Where all
        losses use one kind of count, the micro-batches are taken one by one, and the gradients are scaled at the end.
        Gradients of two kinds cannot be separated at the end, so all micro-batches are counted first.

        Returns:
            The step's mean of each loss term, unweighted, on the device; and its samples.

        Raises:
            StopAsked: a signal came before one of them.
        """
        samples = StepSamples()
        self._output.zero_()
        terms = torch.zeros(len(self.terms), device=self.accelerator.device)
        parts = self.recipe.run.accumulate * self.accelerator.num_processes
        if self._counts_first:
            batches = list(self._micro_batches(samples))
            totals = self._over_all(samples.usable)
            for number, batch in enumerate(batches):
                self.signals.require_none()
                terms += self._backward(number, batch, {kind: (parts, total) for kind, total in totals.items()})
            return terms, samples
        kind = self.terms[0].reduction
        for number, batch in enumerate(self._micro_batches(samples)):
            terms += self._backward(number, batch, {kind: (1, batch.asked[kind])})
        # So far the divisor was the count of all images, or pixels; where all of them are usable, this is 1.
        factor = samples.asked[kind] * self.accelerator.num_processes / self._over_all(samples.usable)[kind]
        if isinstance(factor, Tensor) or factor != 1.0:
            gradients = [parameter.grad for parameter in self.network.parameters() if parameter.grad is not None]
            torch._foreach_mul_(gradients, factor)
        return terms * factor, samples

    def drop_unfinished_step(self) -> None:
        """Keep nothing of a step without its update; Accelerate counts its micro-batches, and saves the count."""
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.step = 0

    def give_memory_back(self) -> None:
        """Training is over: leave the device to the evaluation, which holds two networks."""
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer.state.clear()
        self.network.cpu()
        self.result.cpu()

    def normalize(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> float32 on the device, channels last in memory, by the arithmetic of ``Preprocessing``
        on the host."""
        pixels = image.to(self.accelerator.device, non_blocking=True).permute(0, 2, 3, 1)
        pixels = pixels.to(torch.float32, memory_format=torch.contiguous_format)
        # In place and row by row: new tensors take longer than the arithmetic, and so do numbers taken three by three.
        width = pixels.shape[2]
        pixels.flatten(2).div_(255.0).sub_(self._mean.repeat(width)).div_(self._std.repeat(width))
        return pixels.permute(0, 3, 1, 2)

    def _micro_batches(self, samples: StepSamples) -> Iterator[Batch]:
        """
        The micro-batches of a step, each counted in ``samples`` as it comes.

        Raises:
            StopAsked: a signal came before one of them.
        """
        for _ in range(self.recipe.run.accumulate):
            self.signals.require_none()
            asked = time.perf_counter()
            batch = next(self.batches)
            self.waited_s += time.perf_counter() - asked
            samples.add(batch)
            yield batch

    def _backward(self, number: int, batch: Batch, of_counts: Mapping[str, tuple[int, float | Tensor]]) -> Tensor:
        """
        Args:
            number: of the micro-batch in its step.
            batch: of this process.
            of_counts: by the kind of count that a loss is a mean over, what the batch's own count is multiplied and
                divided by.

        Returns:
            The loss terms of the micro-batch, scaled in this way, as its part of the step's mean.
        """
        self._set_dropout_samples(number)
        with self.accelerator.accumulate(self.model):
            pred, features = self._losses.predict(self.model, self.normalize(batch.image))
            share = self._losses(batch, pred, features, of_counts)
            if self.network.kind != "metric":
                self._output += measure_output(pred)
            self.accelerator.backward((share * self._weights).sum())
        return share.detach() / self.recipe.run.accumulate

    def _set_dropout_samples(self, number: int) -> None:
        """Tell the dropouts, which draw for each sample, which samples of the run the micro-batch holds."""
        micro_batch = self.step * self.recipe.run.accumulate + number
        first = micro_batch * self.accelerator.num_processes + self.accelerator.process_index
        for dropout in self._dropouts:
            dropout.first_sample = first * self.recipe.run.batch_size

    def _over_all(self, counts: Mapping[str, int]) -> dict[str, int | Tensor]:
        """Sums over all processes, at least 1."""
        if self.accelerator.num_processes == 1:
            return {kind: max(1, count) for kind, count in counts.items()}
        here = torch.tensor(list(counts.values()))
        # The copy from pinned memory does not wait for the device; waiting here would be the step's second sync.
        here = here.pin_memory() if self.accelerator.device.type == "cuda" else here
        sums = self.accelerator.reduce(here.to(self.accelerator.device, non_blocking=True), "sum").clamp_min(1)
        return dict(zip(counts, sums, strict=True))

    def _require_finite(self, terms: Tensor, grad_norm: Tensor, samples: StepSamples) -> StepValues:
        """The step's numbers, the same in every process.

        Raises:
            ResultError: one of them is not finite, in any process; the weights are as before the step.
        """
        # Every process must stop after the same step, so the signal is reduced together with these numbers.
        interrupted = terms.new_full((1,), float(self.signals.interrupts.number > 0))
        output = self._output.to(terms) / self.recipe.run.accumulate
        of_step = torch.cat(
            [terms, grad_norm.reshape(1).to(terms), self._head_gradient_norm(terms), interrupted, output]
        )
        *values, head_gradient_norm, interrupted_share, mean, spread = self.accelerator.reduce(of_step, "mean").tolist()
        self.signals.note_share(interrupted_share)
        found = StepValues(
            terms=values[:-1],
            grad_norm=values[-1],
            head_gradient_norm=head_gradient_norm,
            output=(mean, spread) if self.network.kind != "metric" else None,
        )
        if all(map(math.isfinite, values)):
            self._skipped = 0
            return found
        names = [*self.loss_names, "the gradient norm"]
        wrong = ", ".join(f"{name} is {value}" for name, value in zip(names, values, strict=True) if value - value != 0)
        self._skipped += 1
        if all(map(math.isfinite, values[:-1])) and self.accelerator.scaler and self._skipped < MAX_SKIPPED_STEPS:
            return found
        sources = gather_object(samples.sources)
        raise ResultError(
            f"step {self.step}: {wrong}; the step was not taken and the weights are as before it. "
            f"Look at its samples ({', '.join(sources)}), or lower optim.lr and optim.lr_decoder."
        )

    def _head_gradient_norm(self, terms: Tensor) -> Tensor:
        """(1,), on the device of ``terms``: 0 exactly where nothing reaches the head, clipped or not."""
        gradients = [parameter.grad for parameter in self.network.head.parameters() if parameter.grad is not None]
        if not gradients:
            return terms.new_zeros(1)
        return torch.stack([gradient.norm() for gradient in gradients]).norm().reshape(1).to(terms)

    @property
    def loss_names(self) -> list[str]:
        """One name for each loss of a step."""
        return [term.name for term in self.terms]

    def _set_learning_rates(self) -> None:
        optim = self.recipe.optim
        warmup_steps = warmup_within(optim.warmup_steps, self.total_steps)
        factor = rate_factor(optim.schedule, self.step, self.total_steps, warmup_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
