"""One optimizer step, read top to bottom; and when to log, evaluate and save."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NoReturn

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from pydantic import NonNegativeInt, TypeAdapter
from safetensors import SafetensorError
from torch import Tensor, nn

from finetune.data.dataloader import Batch
from finetune.data.preprocessing import Preprocessing
from finetune.data.reader import FEW_BAD_PERCENT, FEW_BAD_SAMPLES, BadSamples, too_many_bad
from finetune.data.validation_dataset import ValidationSamples
from finetune.evaluation.evaluator import PredictFunction, Row, evaluate, predict_with_network
from finetune.evaluation.metrics import is_better
from finetune.evaluation.protocols import Protocol
from finetune.evaluation.results import Evaluation
from finetune.models.checkpoints.load import read_checkpoint
from finetune.models.checkpoints.save import save_adapter, save_native
from finetune.models.depth_model import DepthModel
from finetune.models.dropout import SampleDropout
from finetune.models.lora import adapter_tensors, lora_config, merge_adapters
from finetune.recipe.load import recipe_mapping
from finetune.recipe.run_dir import ADAPTER_FOLDER, RunFolder, lasting_digest
from finetune.recipe.schema import Recipe
from finetune.training.ema import AverageWeights
from finetune.training.monitors import Monitors, PredictionSpread, watch_predictions
from finetune.training.optimizer import rate_factor, warmup_within
from finetune.training.run_log import RunLog, Said
from finetune.utils.errors import FinetuneError, ProcessError, ResultError, first_line
from finetune.utils.files import write_fault
from finetune.utils.manifest import has_checksums, verify_manifest, write_manifest
from finetune.utils.paths import expand_path, path_exists
from finetune.utils.resource_errors import is_of_a_worker, is_of_another_process
from finetune.utils.signals import Interrupted, Interrupts, StopAsked

# What reading a damaged resume point raises, in one library or another.
_OF_DAMAGE = (
    SafetensorError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    EOFError,
    UnpicklingError,
)

# With fp16 a gradient beyond its range is routine: the scaler skips the step and halves its factor. Not so for ever.
MAX_SKIPPED_STEPS = 20


def inverse_depth(depth_m: Tensor, valid: Tensor) -> Tensor:
    """(B, 1, H, W) meters -> float32, 1/m: 0 where it is infinitely far, 1 where ``valid`` is False."""
    # Nearer than a micrometer is no distance, and would be infinity.
    return depth_m.float().where(valid, 1.0).clamp_min(1e-6).reciprocal()


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best evaluation so far."""

    value: float
    step: int


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a resume point keeps beside weights, optimizer and generators; see ``Run``."""

    step: NonNegativeInt
    unlogged: dict[str, float]
    bad_samples: BadSamples
    monitors: dict[str, Any]
    recipe_sha256: str
    # Older versions evaluated before they saved.
    evaluation_due: bool = False
    pending: list[Said] = field(default_factory=list)


@dataclass(kw_only=True)
class StepSamples:
    """What is kept of the micro-batches of a step, of one process.

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
        """Take note of a micro-batch."""
        for kind in self.usable:
            self.asked[kind] += batch.asked[kind]
            self.usable[kind] += batch.usable[kind]
        self.sources += batch.sources
        self.skipped += batch.skipped


@dataclass(kw_only=True)
class Run:
    """Everything a run consists of, put together by ``assembly``.

    Attributes:
        model: as prepared by Accelerate; ``network`` is the model itself.
        optimizer: as prepared; its groups carry ``base_lr``.
        batches: endless, from the current step on.
        log: of the main process; None in the others.
        validation: what every evaluation looks at.
        metadata: what every weights file of this run says of itself.
        monitors: what is wrong with the run, in plain words; part of every resume point.
        baseline_rows: makes the answers that cost nothing; every evaluation must beat ``constant_median`` among them.
        average: of the weights over the steps, which then is what is evaluated and saved; None without one.
        step: optimizer steps taken.
        interrupts: signals that came in this process.
        notes: sentences about what it trains, and what it was resumed from.
        unlogged: sums over the steps since the last logged one; part of every resume point.
        evaluation_due: the weights are to be evaluated before the next step; part of every resume point.
        pending: what the log said of a step whose evaluation is still due, from the resume point.
        bad_samples: those of all steps, where they are skipped; part of every resume point.
    """

    recipe: Recipe
    accelerator: Accelerator
    folder: RunFolder
    model: nn.Module
    network: DepthModel
    optimizer: torch.optim.Optimizer
    preprocessing: Preprocessing
    validation: ValidationSamples
    protocol: Protocol
    metadata: dict[str, Any]
    total_steps: int
    monitors: Monitors
    baseline_rows: Callable[[], Mapping[str, Row]]
    average: AverageWeights | None = None
    batches: Iterator[Batch] = field(default_factory=lambda: iter(()))
    log: RunLog | None = None
    interrupts: Interrupts = field(default_factory=Interrupts)
    notes: list[str] = field(default_factory=list)
    step: int = 0
    best: Best | None = None
    unlogged: dict[str, float] = field(default_factory=dict)
    bad_samples: BadSamples = field(default_factory=BadSamples)
    evaluation_due: bool = False
    pending: Sequence[Said] | None = None
    _skipped: int = field(default=0, init=False)
    _stop: int = field(default=0, init=False)  # the signal that ends the run, of any process; 0: none
    _saved_step: int = field(default=-1, init=False)  # of the newest resume point

    def __post_init__(self) -> None:
        device = self.accelerator.device
        # On the device once: made anew in each step they would be a transfer each.
        self._mean = torch.tensor(self.preprocessing.mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(self.preprocessing.std, device=device).view(1, 3, 1, 1)
        self._weights = torch.tensor([term.weight for term in self.recipe.loss], device=device)
        accumulate = self.recipe.run.accumulate
        # With one micro-batch a step, or two kinds of counts, all are counted before the first backward.
        self._counts_first = accumulate == 1 or len({term.reduction for term in self.recipe.loss}) > 1
        self._dropouts = [module for module in self.network.modules() if isinstance(module, SampleDropout)]
        # With one micro-batch a step, its end is soon enough to hear of the others' signals.
        several = self.accelerator.num_processes > 1 and accumulate > 1
        self._signals: Any = torch.distributed.new_group(backend="gloo") if several else None

    def train(self) -> None:
        """
        Steps until the last one, then the last weights.

        Raises:
            Interrupted: a signal came; a resume point is written.
        """
        try:
            self._take_steps()
            self.save_weights(self.folder.last, {})
            if self.best is None:
                # Resumed after its last step, and best/ is gone.
                self.evaluate()
        except StopAsked:
            self._leave()

    def _take_steps(self) -> None:
        """
        Raises:
            StopAsked: a signal came, between two micro-batches, after a step, or while the weights were evaluated.
        """
        if self.evaluation_due:
            self._evaluate_as_due()
        while self.step < self.total_steps:
            started = time.perf_counter()
            values = self.take_step()
            self._log(values, time.perf_counter() - started)
            self.evaluation_due = self._due(self.recipe.run.evaluate_every_steps)
            if self._stop:
                raise StopAsked
            self._evaluate_as_due()
            if self._due(self.recipe.run.save_every_steps):
                self.save_checkpoint()

    def _evaluate_as_due(self) -> None:
        """The evaluation of a step, if it has one, and its row."""
        if self.evaluation_due:
            self.evaluate()
            self.evaluation_due = False
        if self.log:
            # Before the resume point: a resumed run drops rows of later steps and must find this one.
            self.log.end_step(self.step)

    def _leave(self) -> NoReturn:
        """Save before anything else, since who sent the signal may not wait; an evaluation still due is done later.

        Raises:
            Interrupted: always.
        """
        # A process to which no signal came learns of it from the others.
        number = self._stop or self.interrupts.number or signal.SIGTERM
        # Of a step that was begun nothing is kept; Accelerate counts its micro-batches, and saves the count.
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.step = 0
        if self.log and not self.evaluation_due:
            self.log.end_step(self.step)
        if self.step == 0:
            raise Interrupted(number, "No step was taken yet: --resume begins again.")
        if self._saved_step != self.step:
            self.save_checkpoint()
        raise Interrupted(number, f"{self.folder.checkpoint(self.step)} is saved: go on with --resume.")

    def take_step(self) -> list[float]:
        """
        One change of the weights; every process must call.

        Returns:
            The loss terms, the gradient norm and that of the head.

        Raises:
            ResultError: a number is not finite, or too many samples cannot be read; the weights are as before.
            StopAsked: a signal came between two micro-batches; the weights are as before.
        """
        terms, samples = self._accumulate_gradients()
        grad_norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.optim.clip_norm)
        values = self._require_finite(terms, grad_norm, samples)  # before the weights change; the one sync
        self._require_few_bad(samples)
        self._set_learning_rates()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.average:
            self.average.update(self.network, self.step)
        return values

    def give_memory_back(self) -> None:
        """Training is over: leave the device to the evaluation, which holds two networks."""
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer.state.clear()
        self.network.cpu()
        self.result.cpu()

    @property
    def result(self) -> DepthModel:
        """The network that the run is about: the average where there is one."""
        return self.average.network if self.average else self.network

    def evaluate(self) -> None:
        """
        Score the result as it is now, and keep its weights if none were better; every process must call.

        Raises:
            StopAsked: a signal came meanwhile; nothing is kept of what was scored.
        """
        self.network.eval()
        predict = predict_with_network(self.result)
        evaluation = self._scored(predict)
        if self.log:
            self.log.evaluated(self.step, evaluation, predict)
        self.network.train()
        name = self.recipe.evaluation.best
        value = evaluation.rows["finetuned"][name]
        if is_better(name, value, self.best.value if self.best else None):
            self.best = Best(value=value, step=self.step)
            self.save_weights(self.folder.best, evaluation.to_mapping())

    def _scored(self, predict: PredictFunction) -> Evaluation:
        """The row of the network as it is now; what its answers look like goes to the alarms."""
        seen: list[PredictionSpread] = []
        predictions: dict[str, Row] = {"finetuned": watch_predictions(predict, self.network.max_depth_m, seen)}
        # Once a run: they do not change.
        free = dict(self.baseline_rows()) if self.monitors.constant_score is None else {}
        predictions |= free
        workers = self.recipe.data.workers
        (evaluation,) = evaluate(
            self.accelerator,
            self.validation,
            predictions,
            [self.protocol],
            workers=workers,
            batch_size=self.recipe.run.batch_size,
            stop=lambda: self.interrupts.number > 0,
        )
        if free:
            self.monitors.constant_score = evaluation.rows["constant_median"][self.recipe.evaluation.best]
            if self.log:
                self.log.baseline_rows({row: evaluation.rows[row] for row in free})
        if self.accelerator.num_processes > 1:
            seen = gather_object(seen)
        value = evaluation.rows["finetuned"][self.recipe.evaluation.best]
        self._raise_alarms(self.monitors.evaluated(self.step, self.network, value, seen))
        return evaluation.only("finetuned")

    def _raise_alarms(self, said: Sequence[str]) -> None:
        if self.log and said:
            for sentence in said:
                self.log.say(sentence)
            self.log.text("alarms", "\n".join(said), self.step)

    def save_weights(self, path: Path, evaluation: dict[str, Any]) -> None:
        """Write a weights file that says what it is."""
        if self.accelerator.is_main_process:
            path.parent.mkdir(exist_ok=True)
            metadata = self.metadata | {"step": self.step, "evaluation": evaluation}
            if self.recipe.model.train == "lora":
                # Before the merged weights: where these stand, so does the adapter that belongs to them.
                self._save_adapter(path.with_name(ADAPTER_FOLDER), metadata)
            save_native(
                path, merge_adapters(self.result) if self.recipe.model.train == "lora" else self.result, metadata
            )

    def _save_adapter(self, folder: Path, metadata: dict[str, Any]) -> None:
        options = self.recipe.model.lora
        config = lora_config(len(self.network.encoder.blocks), **vars(options)).to_dict()
        base = self.recipe.model.checkpoint
        assert base is not None, "adapters stand beside the weights of a checkpoint"
        # A path is written whole: the folder will be read from elsewhere.
        file = expand_path(base)
        named = str(file.absolute()) if path_exists(file) else base
        config |= {"base_model_name_or_path": named, "inference_mode": True}
        save_adapter(folder, adapter_tensors(self.result), config, self.result, metadata)

    def save_checkpoint(self) -> None:
        """A resume point, written whole or not at all; every process must call.

        Raises:
            ProcessError: it cannot be written; those before it are as they were.
        """
        try:
            self._write_checkpoint()
        except (OSError, RuntimeError, SafetensorError) as error:
            # PyTorch has no class of its own for a file that cannot be written; memory and other processes have theirs.
            elsewhere = is_of_a_worker(error) or is_of_another_process(error)
            if isinstance(error, RuntimeError) and (type(error) is not RuntimeError or elsewhere):
                raise
            if self.accelerator.is_main_process:
                self.folder.drop_unfinished()
            fix = (
                "Free space on the disk, or fix what else is wrong with it, and go on with --resume: the resume points "
                "before it are whole"
            )
            fault = write_fault(self.folder.checkpoint(self.step), first_line(error), fix)
            raise ProcessError(str(fault)) from error

    def _write_checkpoint(self) -> None:
        if self.accelerator.is_main_process:
            self.folder.require_there()
            self.folder.start_writing(self.step)
        self.accelerator.wait_for_everyone()
        writing = self.folder.writing(self.step)
        self.accelerator.save_state(str(writing))
        if self.average and self.accelerator.is_main_process:
            self.average.save(writing)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            write_manifest(writing, self._state())
            self.folder.sync_metrics()
            notes = self.folder.finish_writing(self.step, self.recipe.run.keep_checkpoints)
            if self.log:
                for note in notes:
                    self.log.say(note)
        self.accelerator.wait_for_everyone()
        self._saved_step = self.step

    def _state(self) -> dict[str, Any]:
        """What a resume point keeps beside weights, optimizer and generators, as plain values; of the main process."""
        state = Kept(
            step=self.step,
            unlogged=self.unlogged,
            bad_samples=self.bad_samples,
            monitors=self.monitors.state(),
            evaluation_due=self.evaluation_due,
            pending=self.log.pending if self.log and self.evaluation_due else [],
            recipe_sha256=self._lasting_digest(),
        )
        return asdict(state)

    def resume(self) -> None:
        """
        Go on from the newest whole resume point, if there is one; every process must call.

        Those that are damaged or of another recipe are left out, and ``notes`` says so.

        Raises:
            FinetuneError: there are some, but none to go on from; or the run is beyond its last step.
        """
        left_out: list[str] = []
        for path in self.folder.newest_first():
            fault = self._load_checkpoint(path)
            # What one process cannot read, none may go on from.
            faults = [one for one in gather_object([fault]) if one]
            if not faults:
                self.best = self._best_on_disk()
                self.notes += left_out
                if not has_checksums(path):
                    self.notes.append(
                        f"{path} is of an older version, which wrote no checksums: its files have their sizes, and "
                        "more is not known of them. What this version does otherwise holds from here on"
                    )
                return
            left_out.append(f"{path} is left out: {faults[0]}")
        if left_out:
            raise FinetuneError("; ".join(left_out) + ". No other is there: start again with --overwrite or name=...")

    def _load_checkpoint(self, path: Path) -> str | None:
        """Model, optimizer, generators and scaler, the samples follow from the step; or what is wrong with it."""
        try:
            state = TypeAdapter(Kept).validate_python(verify_manifest(path))
            # An older version made its digest of other keys; the recipe in the run folder has been compared with.
            if has_checksums(path) and state.recipe_sha256 != self._lasting_digest():
                return "it is of another recipe"
            if state.step > self.total_steps:
                raise FinetuneError(
                    f"{path}: the run stands at step {state.step}, beyond run.steps {self.total_steps}. "
                    "Raise run.steps."
                )
            self._take_up(state)
            self.accelerator.load_state(str(path))
            if self.average:
                self.average.load(path)
        except _OF_DAMAGE as error:
            return f"it is damaged ({first_line(error)})"
        return None

    def _take_up(self, state: Kept) -> None:
        """Go on from what ``_state`` answered."""
        self.step = self._saved_step = state.step
        self.unlogged = state.unlogged
        self.bad_samples = state.bad_samples
        self.monitors.restore(state.monitors)
        self.evaluation_due = state.evaluation_due
        self.pending = state.pending if state.evaluation_due else None

    def _lasting_digest(self) -> str:
        return lasting_digest(recipe_mapping(self.recipe))

    def _best_on_disk(self) -> Best | None:
        """What ``best/`` holds, which may be of a later step than the resume point: it says so itself."""
        if not path_exists(self.folder.best):
            return None
        try:
            metadata = read_checkpoint(str(self.folder.best)).metadata
            (row,) = metadata["evaluation"]["rows"].values()
            return Best(value=float(row[self.recipe.evaluation.best]), step=int(metadata["step"]))
        except (FinetuneError, LookupError, TypeError, ValueError, AttributeError) as error:
            self.notes.append(
                f"{self.folder.best} is damaged ({first_line(error)}): the next evaluation writes it again"
            )
            return None

    def _accumulate_gradients(self) -> tuple[Tensor, StepSamples]:
        """
        Backward of every micro-batch of the step.

        A loss is a mean over the images that have a valid pixel, or over pixels. Over micro-batches and processes the
        divisor is the count of the whole step, so each mean is scaled by its batch's share of that count. Where one
        kind of count serves all losses, the micro-batches are taken one by one, and the gradients are scaled when all
        have been counted; with two kinds they cannot be told apart any more, so all are counted first.

        Returns:
            The step's mean of each loss term, unweighted, on the device; and its samples.

        Raises:
            StopAsked: a signal came before one of them.
        """
        samples = StepSamples()
        terms = torch.zeros(len(self.recipe.loss), device=self.accelerator.device)
        parts = self.recipe.run.accumulate * self.accelerator.num_processes
        if self._counts_first:
            batches = list(self._micro_batches(samples))
            totals = self._over_all(samples.usable)
            for number, batch in enumerate(batches):
                self._require_no_signal()
                terms += self._backward(number, batch, {kind: (parts, total) for kind, total in totals.items()})
            return terms, samples
        kind = self.recipe.loss[0].reduction
        for number, batch in enumerate(self._micro_batches(samples)):
            terms += self._backward(number, batch, {kind: (1, batch.asked[kind])})
        # As if every image, or pixel, of the step had been usable; where it was, this is 1.
        factor = samples.asked[kind] * self.accelerator.num_processes / self._over_all(samples.usable)[kind]
        if isinstance(factor, Tensor) or factor != 1.0:
            gradients = [parameter.grad for parameter in self.network.parameters() if parameter.grad is not None]
            torch._foreach_mul_(gradients, factor)
        return terms * factor, samples

    def _micro_batches(self, samples: StepSamples) -> Iterator[Batch]:
        """
        Those of a step, noted in ``samples`` as they come.

        Raises:
            StopAsked: a signal came before one of them.
        """
        for _ in range(self.recipe.run.accumulate):
            self._require_no_signal()
            batch = next(self.batches)
            samples.add(batch)
            yield batch

    def _require_no_signal(self) -> None:
        """
        Raises:
            StopAsked: one came, in any process; raised in all of them.
        """
        number = self.interrupts.number
        if self.accelerator.num_processes > 1:
            if self._signals is None:
                return
            # On the host, so that nothing waits for a device.
            largest = torch.tensor(number)
            torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX, group=self._signals)
            number = int(largest)
        if number:
            self._stop = number
            raise StopAsked

    def _backward(self, number: int, batch: Batch, of_counts: Mapping[str, tuple[int, float | Tensor]]) -> Tensor:
        """
        Args:
            number: of the micro-batch in its step.
            batch: of this process.
            of_counts: by the kind of count that a loss is a mean over, what the batch's own count is multiplied and
                divided by.

        Returns:
            The loss terms, scaled so, of one micro-batch of ``accumulate``.
        """
        device = self.accelerator.device
        self._draw_for(number)
        with self.accelerator.accumulate(self.model):
            pred = self.model(self.normalized(batch.image))
            target, valid = (tensor.to(device, non_blocking=True) for tensor in (batch.depth_m, batch.valid))
            if self.network.kind == "relative":
                target = inverse_depth(target, valid)
            of_batch = [term.loss(pred, target, valid, term.reduction) for term in self.recipe.loss]
            shares = {kind: batch.usable[kind] * times / divisor for kind, (times, divisor) in of_counts.items()}
            pairs = zip(of_batch, self.recipe.loss, strict=True)
            share = torch.stack([value * shares[term.reduction] for value, term in pairs])
            self.accelerator.backward((share * self._weights).sum())
        return share.detach() / self.recipe.run.accumulate

    def _draw_for(self, number: int) -> None:
        """Tell what draws in the network which samples of the run the micro-batch holds."""
        micro_batch = self.step * self.recipe.run.accumulate + number
        first = micro_batch * self.accelerator.num_processes + self.accelerator.process_index
        for dropout in self._dropouts:
            dropout.first_sample = first * self.recipe.run.batch_size

    def normalized(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> float32 on the device, by the arithmetic of ``Preprocessing`` on the host."""
        image = image.to(self.accelerator.device, non_blocking=True)
        return (image.float() / 255.0 - self._mean) / self._std

    def _over_all(self, counts: Mapping[str, int]) -> dict[str, int | Tensor]:
        """Sums over all processes, at least 1."""
        if self.accelerator.num_processes == 1:
            return {kind: max(1, count) for kind, count in counts.items()}
        here = torch.tensor(list(counts.values()))
        # From pinned memory the copy does not wait for the device; a sync here would be the step's second.
        here = here.pin_memory() if self.accelerator.device.type == "cuda" else here
        sums = self.accelerator.reduce(here.to(self.accelerator.device, non_blocking=True), "sum").clamp_min(1)
        return dict(zip(counts, sums, strict=True))

    def _require_finite(self, terms: Tensor, grad_norm: Tensor, samples: StepSamples) -> list[float]:
        """The terms, the gradient norm and that of the head as numbers, the same in every process.

        Raises:
            ResultError: one of them is not finite, in any process; the weights are as before the step.
        """
        # Every process must stop after the same step, so the signal travels with what is reduced anyway.
        interrupted = terms.new_full((1,), float(self.interrupts.number > 0))
        of_step = torch.cat([terms, grad_norm.reshape(1).to(terms), self._head_gradient_norm(terms), interrupted])
        *values, head_gradient_norm, interrupted_share = self.accelerator.reduce(of_step, "mean").tolist()
        if interrupted_share > 0:
            self._stop = self.interrupts.number or signal.SIGTERM
        if all(map(math.isfinite, values)):
            self._skipped = 0
            return [*values, head_gradient_norm]
        names = [*self.loss_names, "the gradient norm"]
        wrong = ", ".join(f"{name} is {value}" for name, value in zip(names, values, strict=True) if value - value != 0)
        self._skipped += 1
        if all(map(math.isfinite, values[:-1])) and self.accelerator.scaler and self._skipped < MAX_SKIPPED_STEPS:
            return [*values, head_gradient_norm]
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

    def _require_few_bad(self, samples: StepSamples) -> None:
        """Count and name the samples of the step that could not be read, of all processes and the same in each.

        Raises:
            ResultError: they have become too many; the weights are as before the step.
        """
        if self.recipe.data.on_bad_sample == "stop":
            return
        skipped = samples.skipped
        if self.accelerator.num_processes > 1:
            count = torch.tensor(len(skipped), device=self.accelerator.device)
            # Objects take several collectives to gather; hardly a step has any.
            skipped = gather_object(skipped) if self.accelerator.reduce(count, "sum").item() else []
        new = self.bad_samples.add(skipped)
        if self.log:
            for cause in new:
                self.log.say(f"step {self.step}: skipped a sample that cannot be read: {cause}")
        asked = self.samples_asked + self._samples_of_a_step
        if skipped and too_many_bad(self.bad_samples.count, asked):
            raise ResultError(
                f"step {self.step}: {self.bad_samples.summary(asked)}. That is more than {FEW_BAD_SAMPLES}, and more "
                f"than {FEW_BAD_PERCENT} %, which data.on_bad_sample: skip passes over. Mend them, or take them out of "
                "data.train."
            )

    @property
    def _samples_of_a_step(self) -> int:
        return self.recipe.run.batch_size * self.recipe.run.accumulate * self.accelerator.num_processes

    @property
    def samples_asked(self) -> int:
        """How many samples the steps that were taken have asked for, of all processes."""
        return self.step * self._samples_of_a_step

    def rates(self) -> dict[str, float]:
        """The learning rates of the last step, by their recipe key."""
        return {group["rate"]: group["lr"] for group in self.optimizer.param_groups}

    @property
    def loss_names(self) -> list[str]:
        """One name for each loss of the recipe; a kind that stands twice is numbered."""
        kinds = [term.kind for term in self.recipe.loss]
        return [
            kind if kinds.count(kind) == 1 else f"{kind}_{kinds[: place + 1].count(kind)}"
            for place, kind in enumerate(kinds)
        ]

    def _set_learning_rates(self) -> None:
        optim = self.recipe.optim
        warmup_steps = warmup_within(optim.warmup_steps, self.total_steps)
        factor = rate_factor(optim.schedule, self.step, self.total_steps, warmup_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor

    def _log(self, values: list[float], seconds: float) -> None:
        """Move the bar; at a logged step, write the means since the last one."""
        *terms, grad_norm, head_gradient_norm = values
        total = sum(term.weight * value for term, value in zip(self.recipe.loss, terms, strict=True))
        losses = {f"loss_{name}": value for name, value in zip(self.loss_names, terms, strict=True)}
        now = {"loss": total, **losses, "grad_norm": grad_norm, "seconds": seconds, "steps": 1}
        self.unlogged = {name: self.unlogged.get(name, 0.0) + value for name, value in now.items()}
        self.monitors.stepped(total, head_gradient_norm)
        images = self._samples_of_a_step
        if self.log:
            self.log.advance(total, images / seconds)
        if self._due(self.recipe.run.log_every_steps):
            steps = self.unlogged.pop("steps")
            means = {name: value / steps for name, value in self.unlogged.items()}
            self.unlogged = {}
            if self.log:
                rate = {"images_per_second": images / means.pop("seconds")}
                self.log.trained(self.step, means | self.rates() | rate)
            self._raise_alarms(self.monitors.logged(self.step))

    def _due(self, every_steps: int) -> bool:
        return self.step % every_steps == 0 or self.step == self.total_steps
