"""Watches a run for faults that the loss alone does not show, and names them in plain words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.evaluation.evaluator import PredictFunction, PredictionRequest
from finetune.evaluation.metrics import TITLES, is_better
from finetune.evaluation.results import OVERFIT_EVALUATIONS, OVERFIT_SHARE, Evaluated
from finetune.models.depth_model import DepthModel
from finetune.utils.text import count_noun, percent

# A prediction whose spread is below this share of its largest values counts as one number.
CONSTANT_SHARE = 1e-3
# A pixel this near to an end of the head's range counts as at the end; at most this share of the pixels may be there.
AT_END_SHARE, MAX_AT_END = 1e-3, 0.95
MIN_OF_RANGE = 0.2
# Weights that changed by less than this share of their norm, or predictions by less than this share of their spread,
# did not move.
MIN_WEIGHT_CHANGE, MIN_ANSWER_CHANGE = 1e-6, 1e-4
# The output of a relative network is averaged over so many steps, and has drifted once a mean is so many spreads away
# from the first one.
DRIFT_STEPS, DRIFT_SPREADS = 50, 2.0
_VALUES_A_TENSOR = 4096  # how many values of each weight are kept to see whether it moves


class PredictionSpread(NamedTuple):
    """One prediction's 1st and 99th percentile, and the shares of its pixels at the ends of the range."""

    low: float
    high: float
    at_zero: float
    at_max: float

    @property
    def is_constant(self) -> bool:
        """Whether the prediction is one number."""
        return self.high - self.low <= CONSTANT_SHARE * abs(self.high)


def measure_spread(prediction: NDArray[np.floating], max_depth_m: float | None) -> PredictionSpread:
    """
    Args:
        prediction: of any shape.
        max_depth_m: the largest depth the head can predict, meters; None where it has no upper end.
    """
    low, high = np.percentile(prediction, (1, 99))
    at_zero = np.mean(prediction <= AT_END_SHARE * (max_depth_m or 0.0))
    at_max = np.mean(prediction >= (1 - AT_END_SHARE) * max_depth_m) if max_depth_m else 0.0
    return PredictionSpread(float(low), float(high), float(at_zero), float(at_max))


def watch_predictions(predict: PredictFunction, network: DepthModel, seen: list[PredictionSpread]) -> PredictFunction:
    """The same predictions of a network; the spread of each is added to ``seen``."""

    def watching(asked: Sequence[PredictionRequest]) -> list[NDArray[np.floating]]:
        predictions = predict(asked)
        for request, prediction in zip(asked, predictions, strict=True):
            max_depth_m = network.end_m
            if max_depth_m and network.camera is not None and network.camera.is_canonical and request.focal_px:
                max_depth_m *= network.camera.meters_factor(request.focal_px)
            seen.append(measure_spread(prediction, max_depth_m))
        return predictions

    return watching


class Movement:
    """Whether training moves the weights of each part of the network, and the prediction for one fixed image."""

    def __init__(self, network: DepthModel, predict: Callable[[], NDArray[np.floating]]) -> None:
        """
        Args:
            network: as the run starts; its trained weights are watched.
            predict: predicts the fixed image with the network as it is when called.
        """
        self._predict = predict
        self._start = {part: torch.cat(values) for part, values in _sample_weights(network).items()}
        self._first_prediction = predict()

    def faults(self, network: DepthModel) -> Iterator[str]:
        """A clause for each part that did not move since the start."""
        for part, values in _sample_weights(network).items():
            start = self._start[part]
            change = float((torch.cat(values) - start).norm() / start.norm().clamp_min(1e-12))
            if not change > MIN_WEIGHT_CHANGE:
                yield f"the weights of the {part} did not move ({change:.1g} of their size)"
        low, high = np.percentile(self._first_prediction, (1, 99))
        spread = max(float(high - low), CONSTANT_SHARE * abs(float(high)), 1e-12)
        moved = float(np.abs(self._predict() - self._first_prediction).max()) / spread
        if not moved > MIN_ANSWER_CHANGE:
            yield f"the prediction for the first validation image did not change ({moved:.1g} of its spread)"


def _sample_weights(network: DepthModel) -> dict[str, list[Tensor]]:
    """Some values of every trained weight, by the part of the network it belongs to."""
    parts: dict[str, list[Tensor]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            values = parameter.detach().flatten()
            stride = max(1, len(values) // _VALUES_A_TENSOR)
            parts.setdefault(name.partition(".")[0], []).append(values[::stride].float().cpu())
    return parts


@dataclass(frozen=True, kw_only=True)
class MonitorState:
    """What a resume point keeps of ``Monitors``.

    Attributes:
        standing, history, constant_score, base_score: as in ``Monitors``; older versions kept no ``base_score``.
        since: sum of the loss and number of steps since the last evaluation, and the largest gradient norm of the head
            since the last logged step.
        output, outputs: ``first_output``, and the sums of mean and spread and the number of steps of the window that
            has begun; older versions kept neither.
    """

    standing: dict[str, str]
    history: list[Evaluated]
    constant_score: float | None
    since: tuple[float, int, float]
    base_score: float | None = None
    output: tuple[float, float] | None = None
    outputs: tuple[float, float, int] = (0.0, 0.0, 0)


@dataclass(kw_only=True)
class Monitors:
    """Warnings about a run. Each holds from the evaluation, or logged step, that finds it to the first that does not.

    Attributes:
        metric: by which ``best/`` is chosen.
        max_depth_m: the end of the head's range, meters; None for a head without an end.
        warmup_steps: before them the rate is too small to ask whether weights move.
        movement: of the main process; None in the others.
        lasting: sentences about the data, without a full stop, that hold for the whole run.
        standing: name -> sentence of each warning that holds now.
        history: of all evaluations of the run.
        constant_score: of ``constant_median``, once it is known.
        base_score: of the base with one scale and shift, once it is known; None without a base.
        first_output: mean and spread of the output over the first window after the warm-up, once it is known; None for
            a metric head.
    """

    metric: str
    max_depth_m: float | None
    warmup_steps: int
    movement: Movement | None = None
    lasting: tuple[str, ...] = ()
    standing: dict[str, str] = field(default_factory=dict)
    history: list[Evaluated] = field(default_factory=list)
    constant_score: float | None = None
    base_score: float | None = None
    first_output: tuple[float, float] | None = None
    _outputs: tuple[float, float, int] = field(default=(0.0, 0.0, 0), init=False)  # sums, and number of steps
    _loss: float = field(default=0.0, init=False)
    _steps: int = field(default=0, init=False)
    _head_gradient: float = field(default=0.0, init=False)  # the largest norm since the last logged step

    def note_step(self, loss: float, head_gradient: float, output: tuple[float, float] | None = None) -> None:
        """
        Take note of a step.

        Args:
            loss: weighted sum of all terms.
            head_gradient: norm of the gradient of the head.
            output: mean, and spread within an image, of what a relative network predicts; None for a metric one.
        """
        if output is not None:
            mean, spread, steps = self._outputs
            self._outputs = (mean + output[0], spread + output[1], steps + 1)
        self._loss += loss
        self._steps += 1
        self._head_gradient = max(self._head_gradient, head_gradient)

    def note_logged_step(self, step: int) -> list[str]:
        """Sentences to say at a logged step."""
        dead = self._head_gradient == 0.0
        self._head_gradient = 0.0
        sentence = (
            "the gradient of the head is zero at every step since the last logged one, so it learns nothing: its "
            "sigmoid or ReLU is saturated, or no pixel of the batches is valid. Look at the panels and at "
            "data.train, and start with another model.decoder_init"
        )
        return self._update(step, {"head gradient": sentence if dead else None, **self._judge_drift(step)})

    def note_evaluation(
        self, step: int, network: DepthModel, value: float, spreads: Sequence[PredictionSpread]
    ) -> list[str]:
        """
        Args:
            step: steps taken.
            network: as it is trained.
            value: of the metric.
            spreads: of the predictions for all validation images.

        Returns:
            Sentences to say.
        """
        self.history.append(Evaluated(step=step, value=value, loss=self._loss / self._steps if self._steps else None))
        self._loss, self._steps = 0.0, 0
        found: dict[str, str | None] = {**self._judge_spreads(spreads), "overfitting": self._judge_overfitting()}
        if step == 0:
            # A drawn decoder predicts one number and is worse than a constant. Training is there to change that.
            return []
        found["worse than constant_median"] = self._judge_against_constant(value)
        if self.movement and step > self.warmup_steps:
            faults = "; ".join(self.movement.faults(network))
            advice = "Raise optim.lr and optim.lr_decoder, and check model.train"
            found["no movement"] = f"after {count_noun(step, 'step')} {faults}. {advice}" if faults else None
        return self._update(step, found)

    def _judge_drift(self, step: int) -> dict[str, str | None]:
        """Whether the output has left its range over the window that ends here; nothing within a window."""
        if step <= self.warmup_steps:
            self._outputs = (0.0, 0.0, 0)
        mean, spread, steps = self._outputs
        if steps < DRIFT_STEPS:
            return {}
        self._outputs = (0.0, 0.0, 0)
        mean, spread = mean / steps, spread / steps
        if self.first_output is None:
            self.first_output = (mean, spread)
            return {}
        first, reach = self.first_output[0], DRIFT_SPREADS * self.first_output[1]
        # Where the first mean is near 0, a tenth of it is the least: at 0 the ReLU of the last layer is closed.
        low, high = max(first / 10, first - reach), first + reach
        if low <= mean <= high:
            return {"drifting output": None}
        return {
            "drifting output": (
                f"over the last {count_noun(steps, 'step')} the mean of the last layer's output is {mean:.4g}, and "
                f"varies by {spread:.4g} within an image; it began at {first:.4g}, varying by "
                f"{self.first_output[1]:.4g}, so that {low:.4g} to {high:.4g} is its range. Losses that ignore scale "
                "and shift do not hold it: lower optim.lr_decoder"
            )
        }

    def _judge_spreads(self, spreads: Sequence[PredictionSpread]) -> dict[str, str | None]:
        images = count_noun(len(spreads), "validation image")
        constant = all(spread.is_constant for spread in spreads)
        at_zero, at_max = (
            float(np.mean([getattr(spread, end) for spread in spreads])) for end in ("at_zero", "at_max")
        )
        low, high = min(spread.low for spread in spreads), max(spread.high for spread in spreads)
        used = (high - low) / self.max_depth_m if self.max_depth_m else 1.0
        end = f"model.max_depth_m {self.max_depth_m:g} m" if at_max > MAX_AT_END else "0"
        return {
            "constant output": (
                f"the prediction is one number in each of {images} (about {spreads[0].high:.3g}): the network does not "
                "see the image. Lower the learning rates, or start with another model.decoder_init"
            )
            if constant
            else None,
            "predictions at the end of the range": (
                f"{max(at_zero, at_max):.0%} of the predicted pixels are at {end}, where there is no gradient. Lower "
                "the learning rates, and check the unit of the measured depth and model.max_depth_m"
            )
            if max(at_zero, at_max) > MAX_AT_END
            else None,
            "narrow range": (
                f"predictions go from {low:.3g} to {high:.3g} m, {percent(used)} of the range up to model.max_depth_m "
                f"{self.max_depth_m:g} m. If the camera sees no more than that, lower model.max_depth_m; else train "
                "longer"
            )
            if used < MIN_OF_RANGE
            else None,
        }

    def _judge_against_constant(self, value: float) -> str | None:
        if self.constant_score is None or is_better(self.metric, value, self.constant_score):
            return None
        return (
            f"{TITLES[self.metric]} {value:.4f} does not beat constant_median, {self.constant_score:.4f}, which "
            "predicts the median training depth everywhere. Check that images and depth belong together, and the "
            "learning rates"
        )

    def _judge_overfitting(self) -> str | None:
        """Validation has got worse over several evaluations while the training loss went on falling."""
        trained = [evaluated for evaluated in self.history if evaluated.loss is not None]
        if len(trained) <= OVERFIT_EVALUATIONS:
            return None
        best = trained[0]
        for evaluated in trained:
            best = evaluated if is_better(self.metric, evaluated.value, best.value) else best
        after, last = trained[trained.index(best) + 1 :], trained[-1]
        share = abs(last.value - best.value) / max(abs(best.value), 1e-12)
        assert best.loss is not None and last.loss is not None
        if len(after) < OVERFIT_EVALUATIONS or share < OVERFIT_SHARE or last.loss >= best.loss:
            return None
        return (
            f"validation {TITLES[self.metric]} went from {best.value:.4f} at step {best.step} to {last.value:.4f} "
            f"while the training loss fell from {best.loss:.4f} to {last.loss:.4f}: the run overfits its training "
            "frames, or data.val is unlike data.train. Use fewer steps, more frames or more augment"
        )

    def _update(self, step: int, found: Mapping[str, str | None]) -> list[str]:
        """Sentences about the warnings that begin to hold, and those that no longer do."""
        said = []
        for name, sentence in found.items():
            held = name in self.standing
            if sentence:
                self.standing[name] = f"warning at step {step}, {name}: {sentence}."
                if not held:
                    said.append(self.standing[name])
            elif held:
                del self.standing[name]
                said.append(f"step {step}: no longer: {name}.")
        return said

    def sentences(self) -> list[str]:
        """Every warning that still holds."""
        return [*(f"warning, range of the data: {sentence}." for sentence in self.lasting), *self.standing.values()]

    def state(self) -> MonitorState:
        """What a resume point keeps."""
        return MonitorState(
            standing=dict(self.standing),
            history=list(self.history),
            constant_score=self.constant_score,
            since=(self._loss, self._steps, self._head_gradient),
            base_score=self.base_score,
            output=self.first_output,
            outputs=self._outputs,
        )

    def restore(self, state: MonitorState) -> None:
        """Go on from a state."""
        self.standing = dict(state.standing)
        self.history = list(state.history)
        self.constant_score = state.constant_score
        self.base_score = state.base_score
        self._loss, self._steps, self._head_gradient = state.since
        self.first_output, self._outputs = state.output, state.outputs
