"""Every warning of the monitors, provoked by hand and by a run."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from finetune.commands import train
from finetune.data.preprocessing import Preprocessing
from finetune.evaluation.metrics import TITLES
from finetune.models.checkpoints.save import save_native
from finetune.models.depth_model import DepthModel
from finetune.training.monitors import (
    DRIFT_STEPS,
    Monitors,
    MonitorState,
    Movement,
    PredictionSpread,
    measure_spread,
)
from tests.conftest import write_frame
from tests.small_models import BASE, set_last_bias, small_model

SOUND = PredictionSpread(low=0.5, high=8.0, at_zero=0.0, at_max=0.0)


def monitors(metric: str = "abs_rel", max_depth_m: float | None = 10.0) -> Monitors:
    return Monitors(
        metric=metric, max_depth_m=max_depth_m, warmup_steps=2, constant_score=0.4 if metric[0] == "a" else None
    )


def evaluated(
    of: Monitors, value: float = 0.1, spreads: Sequence[PredictionSpread] = (SOUND,), step: int = 1, loss: float = 1.0
) -> str:
    of.note_step(loss, 1.0)
    return " ".join(of.note_evaluation(step, small_model(10.0), value, spreads))


def test_the_spread_of_an_answer_by_hand() -> None:
    # 0 to 10 in steps of 0.1: the 1st of 100 intervals ends at 0.1, the 99th at 9.9.
    spread = measure_spread(np.linspace(0.0, 10.0, 101), 10.0)
    assert (spread.low, spread.high) == pytest.approx((0.1, 9.9))
    assert spread.at_zero == spread.at_max == pytest.approx(1 / 101)
    inverse = measure_spread(np.array([0.0, 0.0, 0.0, 5.0]), None)
    assert (inverse.at_zero, inverse.at_max) == (0.75, 0.0)


def test_nothing_is_said_of_a_sound_run() -> None:
    of = monitors()
    assert not any(evaluated(of, 0.3 - step / 1000, step=step, loss=1 / step) for step in range(1, 9))
    assert not of.note_logged_step(8)
    assert not of.sentences()


def test_one_number_for_every_pixel() -> None:
    flat = PredictionSpread(low=4.9996, high=5.0, at_zero=0.0, at_max=0.0)
    said = evaluated(monitors(max_depth_m=None), spreads=[flat, flat])
    assert said.startswith(
        "warning at step 1, constant output: the prediction is one number in each of 2 validation images"
    )
    # A wall right before the camera in one image is no fault.
    assert not evaluated(monitors(max_depth_m=None), spreads=[flat, SOUND])


@pytest.mark.parametrize(("end", "named"), [("at_zero", "at 0,"), ("at_max", "at model.max_depth_m 10 m,")])
def test_answers_at_an_end_of_the_range(end: str, named: str) -> None:
    at_end, nearly = (SOUND._replace(**{end: share}) for share in (0.96, 0.94))
    said = evaluated(monitors(), spreads=[at_end, at_end])
    assert f"96% of the predicted pixels are {named}" in said
    assert not evaluated(monitors(), spreads=[nearly, nearly])
    # The shares are of all images: a sky in one of two is no fault.
    assert not evaluated(monitors(), spreads=[SOUND._replace(**{end: 1.0}), SOUND])


def test_a_fifth_of_the_range() -> None:
    narrow = [
        PredictionSpread(low=1.0, high=2.0, at_zero=0, at_max=0),
        PredictionSpread(low=2.0, high=2.9, at_zero=0, at_max=0),
    ]
    said = evaluated(monitors(), spreads=narrow)
    assert "predictions go from 1 to 2.9 m, 19% of the range up to model.max_depth_m 10 m" in said
    assert not evaluated(monitors(), spreads=[*narrow, SOUND._replace(high=3.0)])
    assert not evaluated(monitors(max_depth_m=None), spreads=narrow)


def test_worse_than_a_constant_begins_once_and_ends() -> None:
    of = monitors()
    assert evaluated(of, 0.5, step=0) == ""  # where a run starts is not its result
    assert "AbsRel 0.4100 does not beat constant_median, 0.4000" in evaluated(of, 0.41, step=1)
    assert evaluated(of, 0.42, step=2) == ""
    assert of.sentences() == [said for said in of.sentences() if "at step 2" in said and "0.4200" in said] != []
    assert evaluated(of, 0.39, step=3) == "step 3: no longer: worse than constant_median."
    assert not of.sentences()


def test_a_head_without_gradient() -> None:
    of = monitors()
    for gradient in (0.0, 1e-30, 0.0):
        of.note_step(1.0, gradient)
    assert not of.note_logged_step(3)  # one step with a gradient is enough
    of.note_step(1.0, 0.0)
    (said,) = of.note_logged_step(4)
    assert "warning at step 4, head gradient: the gradient of the head is zero at every step" in said


@pytest.mark.parametrize(
    ("metric", "values"), [("abs_rel", [0.3, 0.2, 0.21, 0.2, 0.22]), ("delta1", [0.5, 0.8, 0.79, 0.8, 0.75])]
)
def test_validation_that_gets_worse_while_training_gets_better(metric: str, values: list[float]) -> None:
    losses = [1.0, 0.9, 0.8, 0.7, 0.6]
    of = monitors(metric)
    said = [
        evaluated(of, value, step=step, loss=loss)
        for step, (value, loss) in enumerate(zip(values, losses, strict=True), 1)
    ]
    assert not any(said[:-1])
    assert f"validation {TITLES[metric]} went from {values[1]:.4f} at step 2 to {values[-1]:.4f}" in said[-1]
    assert "loss fell from 0.9000 to 0.6000" in said[-1]
    # With a loss that rises as well it is another fault; within 5 % it is noise.
    for other, loss in ((values[-1], 0.95), (values[1] * (0.96 if metric == "delta1" else 1.04), 0.6)):
        of = monitors(metric)
        for step, (value, fallen) in enumerate(zip([*values[:-1], other], [*losses[:-1], loss], strict=True), 1):
            assert not evaluated(of, value, step=step, loss=fallen)


def test_weights_that_stay_are_named_by_their_part() -> None:
    network = small_model(10.0)
    prediction = np.array([[1.0, 2.0]])
    movement = Movement(network, lambda: prediction)
    assert len(list(movement.faults(network))) == 4  # encoder, decoder, head, prediction
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if not name.startswith("encoder."):
                parameter.mul_(1.001)
    prediction = np.array([[1.0, 2.001]])
    assert list(movement.faults(network)) == ["the weights of the encoder did not move (0 of their size)"]
    network.encoder.requires_grad_(False)
    frozen = " ".join(Movement(network, lambda: prediction).faults(network))
    assert "the decoder did not" in frozen and "the head did not" in frozen and "encoder" not in frozen


def test_what_stands_comes_back_from_a_resume_point() -> None:
    of, resumed = monitors(), monitors()
    evaluated(of, 0.5, step=1)
    of.note_step(3.0, 0.0)
    state = json.loads(json.dumps(asdict(of.state())))
    resumed.restore(TypeAdapter(MonitorState).validate_python(state))
    assert resumed == of
    assert resumed.sentences() == of.sentences() != []


def write_metric(path: Path, bias: float, flat: bool) -> Path:
    """A metric base of 10 m whose last layer has a bias, and weights unless it is to predict one number."""
    network: DepthModel = small_model(10.0)
    set_last_bias(network, bias)
    if flat:
        with torch.no_grad():
            network.state_dict()["head.last.weight"].zero_()
    save_native(
        path, network, {"preprocessing": Preprocessing(input_size=(56, 70)).to_mapping(), "base": BASE, "name": "x"}
    )
    return path


def tensorboard_texts(run: Path) -> str:
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    tags = [tag for tag in events.Tags()["tensors"] if tag.startswith("warnings")]
    return " ".join(value.tensor_proto.string_val[0].decode() for tag in tags for value in events.Tensors(tag))


@pytest.mark.slow
def test_a_run_that_stands_still_says_so_everywhere(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The logistic function of 40 is 1 in float32 and its slope 0: one number, at the end of the range, and no gradient.
    base = write_metric(tmp_path / "base.safetensors", 40.0, flat=True)
    assert train.main([str(recipe), f"model.checkpoint={base}", "export=[]"]) == 0
    run, printed = tmp_path / "runs" / "small", capsys.readouterr().out
    (table,) = json.loads((run / "evaluation.json").read_text())
    names = [sentence.split(", ")[1].split(":")[0] for sentence in table["alarms"]]
    assert set(names) == {
        "constant output",
        "predictions at the end of the range",
        "narrow range",
        "worse than constant_median",
        "head gradient",
        "no movement",
    }
    before, below = printed.split("protocol plain")
    in_tensorboard = tensorboard_texts(run)
    for name, sentence in zip(names, table["alarms"], strict=True):
        assert f", {name}: " in before  # said when it began
        assert sentence in below
        assert f", {name}: " in in_tensorboard
    assert below.splitlines()[-2] == "6 warnings, above"


@pytest.mark.slow
def test_rates_that_move_nothing_are_named(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("optim.lr=1e-12", "optim.lr_decoder=1e-12", "optim.weight_decay=0", "export=[]")
    assert train.main([str(recipe), *arguments]) == 0
    said = capsys.readouterr().out
    assert "no movement: after 3 steps the weights of the encoder did not move" in said
    assert "the weights of the head did not move" in said
    assert "the prediction for the first validation image did not change" in said
    assert train.main([str(recipe), "name=other", "model.train=decoder", "run.steps=3", "export=[]"]) == 0
    assert "no movement" not in capsys.readouterr().out  # what is not trained need not move


@pytest.mark.slow
def test_overfitting_is_named(recipe: Path, frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The frames held out are three times as far as images like theirs say: what is learned makes them worse.
    folder = shutil.copytree(frames, tmp_path / "copy")
    for name in ("10", "11", "12"):
        write_frame(folder, name, np.full((48, 64), 9.0) + np.linspace(0, 0.9, 64))
    arguments = (f"data.val.0.root={folder}", "run.steps=12", "run.evaluate_every_steps=2", "optim.lr_decoder=5e-4")
    assert train.main([str(recipe), *arguments, "model.decoder_init=scratch", "export=[]"]) == 0
    said = capsys.readouterr().out
    assert "overfitting: validation AbsRel went from" in said
    assert "while the training loss fell from" in said


def test_depth_beyond_the_range_of_the_head_is_named_before_the_first_step(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main([str(recipe), "model.max_depth_m=5", "run.steps=2", "export=[]"]) == 0
    said = capsys.readouterr().out
    head, _ = said.split("step 0  AbsRel")
    assert "of the measured depth of data.train.0 is beyond model.max_depth_m 5 m and is not trained on" in head
    assert "of the measured depth of data.val.0 is beyond model.max_depth_m 5 m and is not scored" in head
    assert "Set model.max_depth_m: " in head and "or more if the model is to predict farther" in head
    (table,) = json.loads((tmp_path / "runs" / "small" / "evaluation.json").read_text())
    assert sum("range of the data" in sentence for sentence in table["alarms"]) == 2
    assert "data.train.0 is beyond" in tensorboard_texts(tmp_path / "runs" / "small")
    ceiling = ("name=ceiling", "data.train.0.out_of_range=ceiling", "evaluation.max_depth_m=20")
    assert train.main([str(recipe), "model.max_depth_m=5", "run.steps=2", "export=[]", *ceiling]) == 0
    assert "range of the data" not in capsys.readouterr().out


def drift(of: Monitors, *outputs: tuple[float, float], steps: int = DRIFT_STEPS, first: int = 0) -> list[str]:
    """What is said while the output has each of the means and spreads for so many steps, logged every tenth."""
    said = []
    for number, output in enumerate(outputs):
        for step in range(1, steps + 1):
            of.note_step(1.0, 1.0, output)
            if step % 10 == 0:
                said += of.note_logged_step(first + number * steps + step)
    return said


def test_an_output_that_leaves_its_range_is_named_until_it_is_back() -> None:
    of = monitors(max_depth_m=None)
    # The first window after the warm-up is the range: 5, and twice 1.5 to both sides.
    assert drift(of, (5.0, 1.5), (7.9, 9.0), (2.1, 0.1)) == []
    (said,) = drift(of, (8.1, 1.5), first=300)
    assert said.startswith("warning at step 350, drifting output: over the last 50 steps the mean of the last layer's")
    assert "is 8.1, and varies by 1.5 within an image; it began at 5, varying by 1.5, so that 2 to 8 is its" in said
    assert drift(of, (8.2, 1.5), first=400) == []  # it is said once
    assert drift(of, (5.0, 1.5), first=500) == ["step 550: no longer: drifting output."]
    assert not of.sentences()


def test_an_output_that_goes_to_zero_has_drifted_and_a_metric_one_is_not_watched() -> None:
    of = monitors(max_depth_m=None)
    assert drift(of, (1.0, 0.9), (0.11, 0.1)) == []
    (said,) = drift(of, (0.09, 0.1), first=200)
    assert "0.1 to 2.8 is its range" in said
    metric = monitors()
    for step in range(1, 201):
        metric.note_step(1.0, 1.0)
        assert not metric.note_logged_step(step)


def test_a_window_goes_on_after_a_resume_and_older_states_have_none() -> None:
    adapter = TypeAdapter(MonitorState)
    one, two = monitors(max_depth_m=None), monitors(max_depth_m=None)
    drift(one, (5.0, 1.5), (8.2, 1.0), steps=DRIFT_STEPS)
    del one.standing["drifting output"]
    drift(one, (9.0, 1.0), steps=20)
    state = json.loads(adapter.dump_json(one.state()))
    two.restore(adapter.validate_python(state))
    assert drift(two, (9.0, 1.0), steps=30, first=120) == drift(one, (9.0, 1.0), steps=30, first=120) != []
    for key in ("output", "outputs"):
        del state[key]
    two.restore(adapter.validate_python(state))
    assert two.first_output is None
