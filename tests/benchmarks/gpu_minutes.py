"""Everything that only a GPU can show, within ten minutes, as one table whose first rows are worth most.

    PYTHONPATH=. python tests/benchmarks/gpu_minutes.py --output gpu_minutes
    PYTHONPATH=. python tests/benchmarks/gpu_minutes.py --output gpu_minutes --device cpu --quick

The tests marked ``cuda``; time and memory of a training step at 518x518 in float32 and bf16, compiled or not, of all
weights and by LoRA; images a second of the train command with its data path; images a second of prediction by batch,
and of the predict command. Weights and frames are drawn, so that nothing is fetched.

Each row is a process of its own, and is in the table (``table.md``, ``table.json``) as soon as it is known: a crash
costs that row, and a program that was cut off goes on where it was when it is started again with the same --output.
No row starts that is not expected to end within --budget-s. A row that was not reached says "not measured".

A step is ``Trainer.take_step`` on one batch that is in memory already, from loss to optimizer, with the one wait for
the device that it has: the median after three steps. Peak memory is what PyTorch had on the GPU; on a CPU, the process.

Works from a clone that is not installed, with Python 3.11 or later and PyTorch 2.6 or later. Where nothing can be
installed from a network, take along as wheels what ``python -m pip list`` there lacks of setup.cfg's requirements, for
its version of Python; of machines made for PyTorch, that is often pydantic, pydantic-core, annotated-types,
typing-inspection, timm, peft and opencv-python-headless, and for the tests pytest. Without albumentations (with
albucore, stringzilla, simsimd) only the rows of the train command fail. Compiled rows need a C++ compiler or Triton.
``--quick`` is a rehearsal: the tiny encoder, few images; its figures mean nothing. ``--device mps`` was never tried.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import platform
import re
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.commands.runner import configure_threading
from finetune.utils.files import write_file

if TYPE_CHECKING:
    from finetune.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]
NOT_MEASURED = "not measured"
ENCODERS = ("vits", "vitl", "vitb")
WARM_UP = 3  # steps or batches before those that are timed
MIN_LIMIT_S = 120.0  # of a row, unless less of the budget is left: a busy machine takes longer than expected
RECIPE = """\
name: run
output: {folder}
model: {{checkpoint: {checkpoint}, max_depth_m: 10.0, decoder_init: pretrained, train: {train}}}
data:
  input_size: [{side}, {side}]
  train: [{{reader: pairs, root: {folder}, list: train.txt, meters_per_unit: 0.001}}]
  val: [{{reader: pairs, root: {folder}, list: val.txt, meters_per_unit: 0.001}}]
loss: [{{kind: silog}}]
optim: {{warmup_steps: 1}}
run: {{steps: {steps}, batch_size: {batch}, precision: {precision}, compile: {compiled}, log_every_steps: {log},
      evaluate_every_steps: 100000, save_every_steps: 100000}}
export: []
"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement.

    Attributes:
        what: a key of ``MEASURES``, or "tests".
        precision: ``fp32`` or ``bf16``.
        train: ``all`` or ``lora``.
        batch: images at once; 0 where there is no such number.
        needs_s: how long it is expected to take, with the start of its process.
    """

    what: str
    encoder: str = ""
    precision: str = ""
    train: str = ""
    compiled: bool = False
    batch: int = 0
    needs_s: float = 25.0

    @property
    def name(self) -> str:
        """Names the row in the table and on the command line of its process."""
        parts = (self.what, self.encoder, self.precision, self.train, "compiled" if self.compiled else "")
        return " ".join((*filter(None, parts), *([f"batch {self.batch}"] if self.batch else [])))


def list_rows(batch: int, *, quick: bool) -> list[Row]:
    """All rows, those worth most first."""

    def step(encoder: str, precision: str, train: str = "all", compiled: bool = False) -> Row:
        needs_s = 100.0 if compiled else 25.0
        return Row(
            what="step",
            encoder=encoder,
            precision=precision,
            train=train,
            compiled=compiled,
            batch=batch,
            needs_s=needs_s,
        )

    def predict(encoder: str, at_once: int, precision: str = "fp32") -> Row:
        return Row(what="predict", encoder=encoder, precision=precision, batch=at_once)

    def command(name: str, encoder: str, precision: str) -> Row:
        of_training = {"train": "all", "batch": batch} if name == "train command" else {}
        return Row(what=name, encoder=encoder, precision=precision, needs_s=60.0, **of_training)  # type: ignore[arg-type]

    tests = Row(what="tests", needs_s=60.0)
    if quick:
        of_steps = [step("tiny", "fp32"), step("tiny", "bf16"), step("tiny", "fp32", "lora")]
        commands = [command("train command", "tiny", "fp32"), command("predict command", "tiny", "fp32")]
        return [tests, *of_steps, predict("tiny", 1), predict("tiny", 2), *commands]
    first = [
        *(tests, step("vits", "bf16"), step("vits", "fp32"), command("train command", "vits", "bf16")),
        *(predict("vits", 8, "bf16"), predict("vits", 1), predict("vits", 8), predict("vits", 32)),
        *(step("vitl", "bf16"), step("vitl", "bf16", "lora"), step("vits", "bf16", compiled=True)),
        *(command("predict command", "vits", "bf16"), command("predict command", "vits", "fp32"), step("vitb", "bf16")),
        *(predict("vitl", 8, "bf16"), predict("vitl", 1), predict("vitl", 8)),
        *(step("vitl", "fp32"), step("vitb", "bf16", "lora"), step("vits", "bf16", "lora"), step("vitb", "fp32")),
        step("vitl", "bf16", compiled=True),
    ]
    product = itertools.product((False, True), ("lora", "all"), ("bf16", "fp32"), ENCODERS)
    steps = [step(encoder, precision, train, compiled) for compiled, train, precision, encoder in product]
    others = [
        predict(encoder, at_once, kind) for kind in ("bf16", "fp32") for at_once in (1, 8, 32) for encoder in ENCODERS
    ]
    return list(dict.fromkeys([*first, *others, *steps]))


# What each row does, in its own process ---------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a row is measured: its device, whether quickly, and a folder for what it writes."""

    device: str
    quick: bool
    folder: Path

    @property
    def side(self) -> int:
        """Height and width of the network's input, pixels."""
        return 56 if self.quick else 518

    @property
    def seconds(self) -> float:
        """How long a loop is timed."""
        return 0.5 if self.quick else 4.0


def _timed(place: Place, once: Callable[[], object], images: int) -> dict[str, float | str]:
    """The median time of ``once``, which handles so many images and waits for the device itself."""
    import torch

    from finetune.training.step_cost import peak_memory_bytes

    for _ in range(WARM_UP):
        once()
    seconds: list[float] = []
    while len(seconds) < 5 or sum(seconds) < place.seconds:
        began = time.perf_counter()
        once()
        seconds.append(time.perf_counter() - began)
    median_s = statistics.median(seconds)
    peak = peak_memory_bytes(torch.device(place.device))
    note = f"median of {len(seconds)}"
    return {"ms": 1000 * median_s, "images_per_s": images / median_s, "peak_gb": peak / 1e9, "note": note}


def _recipe_text(row: Row, place: Place, checkpoint: Path, steps: int) -> str:
    return RECIPE.format(
        folder=place.folder,
        checkpoint=checkpoint,
        train=row.train or "all",
        side=place.side,
        steps=steps,
        batch=row.batch,
        precision=row.precision,
        compiled=str(row.compiled).lower(),
        log=max(1, steps // 10),
    )


def _make_trainer(row: Row, place: Place) -> Trainer:
    from finetune.data.preprocessing import Preprocessing
    from finetune.recipe.load import load_recipe
    from finetune.training.build import make_trainer
    from finetune.training.environment import make_accelerator, try_compiler
    from finetune.training.head_init import draw_model
    from finetune.training.startup import Startup
    from finetune.utils.signals import Interrupts

    _draw_frames(place.folder, 2)
    path = place.folder / "recipe.yaml"
    write_file(path, _recipe_text(row, place, place.folder / "drawn.safetensors", 1000))
    recipe = load_recipe(path, check_files=False)
    accelerator, notes = make_accelerator(recipe)
    if accelerator.device.type != place.device:
        raise SystemExit(f"Accelerate chose the device {accelerator.device.type}, not {place.device}")
    print(*notes, sep="\n", file=sys.stderr)
    if row.compiled:
        try_compiler(accelerator.device)
    startup = Startup(
        recipe=recipe,
        accelerator=accelerator,
        checkpoint=None,
        preprocessing=Preprocessing(input_size=(place.side, place.side)),
        model=draw_model(row.encoder, 10.0, 0),
        baselines=None,
        loaded="",
    )
    trainer, _ = make_trainer(startup, Interrupts())
    return trainer


def measure_step(row: Row, place: Place) -> dict[str, float | str]:
    """Optimizer steps on one batch."""
    import torch

    from finetune.data.dataloader import Batch

    trainer = _make_trainer(row, place)
    generator = torch.Generator().manual_seed(0)
    shape = (row.batch, 3, place.side, place.side)
    image = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    depth_m = torch.rand((row.batch, 1, *shape[2:]), generator=generator) * 8 + 1
    valid = torch.rand(depth_m.shape, generator=generator) > 0.2
    image = image.contiguous(memory_format=torch.channels_last)
    # As the loader does.
    host = [tensor.pin_memory() if place.device == "cuda" else tensor for tensor in (image, depth_m, valid)]
    batch = Batch(
        image=host[0],
        depth_m=host[1],
        valid=host[2],
        usable_images=row.batch,
        usable_pixels=int(valid.sum()),
        sources=["drawn"] * row.batch,
    )
    trainer.batches = itertools.repeat(batch)
    return _timed(place, trainer.take_step, row.batch)


def measure_predict(row: Row, place: Place) -> dict[str, float | str]:
    """Batches as the predict command makes them, and back to the host at 480x640; without decoding and files."""
    from dataclasses import replace

    import numpy as np
    import torch

    from finetune.inference.network_batches import BatchPredictor, NetworkInput
    from finetune.inference.predictor import load_model

    predictor = load_model(_draw_checkpoint(row, place), place.device)
    predictor = replace(predictor, precision=row.precision)  # type: ignore[arg-type]
    pixels = torch.rand((row.batch, 3, place.side, place.side), generator=torch.Generator().manual_seed(0))
    image = np.zeros((480, 640, 3), np.uint8)
    inputs = [NetworkInput(path=Path("drawn"), image=image, pixels=part, focal_px=None) for part in pixels]
    network = BatchPredictor(predictor, batch_size=row.batch, flip=False)
    measured = _timed(place, lambda: network.predict(inputs), row.batch)
    if network.batch_size < row.batch:
        measured["note"] = f"{measured['note']}, memory ran out: {network.batch_size} at once"
    return measured


def _draw_checkpoint(row: Row, place: Place) -> Path:
    from finetune.data.preprocessing import Preprocessing
    from finetune.models.checkpoints.save import save_native
    from finetune.training.head_init import draw_model

    preprocessing = Preprocessing(input_size=(place.side, place.side)).to_mapping()
    base = {"source": "drawn", "sha256": "0" * 64, "license": None}
    path = place.folder / "drawn.safetensors"
    save_native(path, draw_model(row.encoder, None, 0), {"preprocessing": preprocessing, "base": base})
    return path


def _draw_frames(folder: Path, count: int) -> None:
    """JPEG of 480x640 with 16-bit PNG of a tilted wall, and the lists of a recipe."""
    import cv2
    import numpy as np

    generator = np.random.default_rng(0)
    for number in range(count):
        small = generator.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number:03}.jpg"), cv2.resize(small, (640, 480), interpolation=cv2.INTER_CUBIC))
        near_m, far_m = generator.uniform(1, 3), generator.uniform(4, 9)
        rows_m = 1 / np.linspace(1 / far_m, 1 / near_m, 480)
        depth_mm = np.broadcast_to(rows_m[:, None] * 1000, (480, 640)) + generator.uniform(0, 20, (480, 640))
        cv2.imwrite(str(folder / f"{number:03}.png"), depth_mm.astype(np.uint16))
    lines = [f"{number:03}.jpg {number:03}.png\n" for number in range(count)]
    write_file(folder / "train.txt", "".join(lines[:-1]))
    write_file(folder / "val.txt", lines[-1])


def measure_train_command(row: Row, place: Place) -> dict[str, float | str]:
    """What a user types, with files, decoding, augmentation and workers: the median of the speed that it logs."""
    _draw_frames(place.folder, 4 if place.quick else 129)
    recipe = place.folder / "recipe.yaml"
    steps = 6 if place.quick else 100
    write_file(recipe, _recipe_text(row, place, _draw_checkpoint(row, place), steps))
    _call([sys.executable, str(ROOT / "finetune" / "train.py"), str(recipe)])
    with (place.folder / "run" / "metrics.csv").open(newline="") as file:
        speeds = [float(entry["images_per_second"]) for entry in csv.DictReader(file) if entry["images_per_second"]]
    # The first of them hold the start of the workers and the choice of kernels.
    speed = statistics.median(speeds[len(speeds) // 3 :])
    note = f"{os.cpu_count()} cores, JPEG and 16-bit PNG of 480x640"
    return {"ms": 1000 * row.batch / speed, "images_per_s": speed, "note": note}


def measure_predict_command(row: Row, place: Place) -> dict[str, float | str]:
    """What a user types, on a folder of images: all of its time, with its start."""
    count = 4 if place.quick else 200
    images, output = place.folder / "images", place.folder / "predicted"
    images.mkdir()
    _draw_frames(images, count)
    for path in images.glob("*.png"):
        path.unlink()
    checkpoint = _draw_checkpoint(row, place)
    began = time.perf_counter()
    command = [sys.executable, "-m", "finetune", "predict", str(checkpoint), str(images), "--output", str(output)]
    _call([*command, "--device", place.device, "--precision", row.precision])
    seconds = time.perf_counter() - began
    written = len(list(output.rglob("*.npy")))
    if written < count:
        raise SystemExit(f"{written} of {count} predictions were written")
    note = f"{count} images of 480x640, {seconds:.1f} s with the start of the program"
    return {"ms": 1000 * seconds / count, "images_per_s": count / seconds, "note": note}


def _call(command: Sequence[str]) -> None:
    """Run a command to its end; what it prints goes where errors go.

    Raises:
        SystemExit: it failed.
    """
    ended = subprocess.run(command, stdout=sys.stderr, check=False)
    if ended.returncode:
        raise SystemExit(ended.returncode)


MEASURES: dict[str, Callable[[Row, Place], dict[str, float | str]]] = {
    "step": measure_step,
    "predict": measure_predict,
    "train command": measure_train_command,
    "predict command": measure_predict_command,
}


def measure_here(row: Row, device: str, quick: bool) -> int:
    """Measure a row in this process; the last line that is printed is the result."""
    # As the commands do, before torch is imported.
    configure_threading()
    with tempfile.TemporaryDirectory() as folder:
        found = MEASURES[row.what](row, Place(device=device, quick=quick, folder=Path(folder)))
    print(json.dumps(found))
    return 0


# The table --------------------------------------------------------------------------------------------------------


def measure_apart(row: Row, arguments: argparse.Namespace, limit_s: float) -> dict[str, Any]:
    """Measure a row in a process of its own.

    Returns:
        What ``MEASURES`` give, or ``failed`` with a reason.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    if arguments.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    if row.what == "tests":
        # All files of tests would take a minute to import.
        marked = [str(path) for path in (ROOT / "tests").rglob("test_*.py") if "pytest.mark.cuda" in path.read_text()]
        command = [sys.executable, "-m", "pytest", "-m", "cuda", "-q", "-p", "no:cacheprovider", *sorted(marked)]
    else:
        command = [sys.executable, str(Path(__file__).resolve()), "--row", row.name, *_options(arguments)]
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=out, stderr=err, start_new_session=True)
        try:
            status = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return {"failed": f"did not end within {limit_s:.0f} s"}
        finally:
            # The group: workers of a loader would outlive their parent.
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        out.seek(0)
        err.seek(0)
        printed, errors = out.read().strip().splitlines(), err.read().strip().splitlines()
    took = {"took_s": round(time.perf_counter() - began, 1)}
    if row.what == "tests":
        summary = re.sub(r"[=\s]+", " ", printed[-1]).strip() if printed else "nothing was printed"
        return {**took, "note": summary} if status == 0 else {**took, "failed": summary if printed else _reason(errors)}
    if status:
        return {**took, "failed": _reason(errors)}
    return {**took, **json.loads(printed[-1])}


def _reason(errors: Sequence[str]) -> str:
    """The last line of a traceback, or of whatever was printed, short enough for a table."""
    return (errors[-1].strip() if errors else "ended without a word")[:200]


def _options(arguments: argparse.Namespace) -> list[str]:
    quick = ["--quick"] if arguments.quick else []
    return ["--device", arguments.device, "--batch", str(arguments.batch), *quick]


def describe_machine(device: str) -> dict[str, str]:
    """What the figures of a table depend on."""
    import torch

    from finetune.training.environment import PACKAGES, _cpu_name, _version

    versions = {name: _version(name) or "not installed" for name in PACKAGES}
    versions["torch"] = str(torch.__version__)
    properties = torch.cuda.get_device_properties(0) if device == "cuda" else None
    return {
        "device": f"{properties.name}, {properties.total_memory / 1e9:.0f} GB" if properties else _cpu_name(),
        "cuda": str(torch.version.cuda) if properties else "none",
        "cudnn": str(torch.backends.cudnn.version()) if properties else "none",
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        "platform": platform.platform(),
        **versions,
    }


@dataclass(frozen=True, kw_only=True)
class Table:
    """The results, which are on disk after each row."""

    folder: Path
    machine: dict[str, str]
    command: str
    rows: Sequence[Row]
    found: dict[str, dict[str, Any]]

    @classmethod
    def opened(cls, folder: Path, machine: dict[str, str], command: str, rows: Sequence[Row]) -> Table:
        """With what an earlier call found; its failed rows are measured again.

        Raises:
            SystemExit: the earlier call was on another machine, or with other versions.
        """
        path = folder / "table.json"
        found: dict[str, dict[str, Any]] = {}
        if path.exists():
            before = json.loads(path.read_text(encoding="utf-8"))
            changed = [key for key in machine if before["machine"].get(key) != machine[key]]
            if changed:
                raise SystemExit(f"{path}: was measured with another {', '.join(changed)}. Give another --output.")
            found = {name: row for name, row in before["rows"].items() if "failed" not in row}
        return cls(folder=folder, machine=machine, command=command, rows=rows, found=found)

    def add(self, row: Row, found: dict[str, Any]) -> None:
        """Keep a result, and write the table."""
        self.found[row.name] = found
        self.write()

    def write(self) -> None:
        """Both files, each whole or not at all."""
        content = {"machine": self.machine, "command": self.command, "rows": self.found}
        write_file(self.folder / "table.json", json.dumps(content, indent=2) + "\n")
        write_file(self.folder / "table.md", self.markdown())

    def markdown(self) -> str:
        """The table, all of its rows, below what it was measured with."""
        head = [f"{key}: {value}" for key, value in self.machine.items()]
        lines = [f"`{self.command}`", "", ", ".join(head), "", "| row | ms | images/s | peak memory | note |"]
        lines.append("| --- | --- | --- | --- | --- |")
        lines += [f"| {row.name} | {' | '.join(_cells(self.found.get(row.name)))} |" for row in self.rows]
        return "\n".join(lines) + "\n"


def _cells(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return ["", "", "", NOT_MEASURED]
    if "failed" in found:
        return ["", "", "", f"failed: {found['failed']}".replace("|", "/")]
    ms, speed, peak_gb = (found.get(key) for key in ("ms", "images_per_s", "peak_gb"))
    return [
        f"{ms:.1f}" if ms is not None else "",
        f"{speed:.1f}" if speed is not None else "",
        f"{peak_gb:.2f} GB" if peak_gb is not None else "",
        str(found.get("note", "")).replace("|", "/"),
    ]


def fill_table(
    table: Table, budget_s: float, measure: Callable[[Row, float], dict[str, Any]], clock: Callable[[], float]
) -> None:
    """Measure the rows that are missing, in order, while there is time.

    Args:
        table: is written before the first row, and after each.
        budget_s: seconds from now.
        measure: a row within a limit in seconds -> its result.
        clock: seconds.
    """
    end = clock() + budget_s
    table.write()
    for row in table.rows:
        left_s = end - clock()
        if row.name in table.found or left_s < row.needs_s:
            continue
        found = measure(row, min(left_s, max(MIN_LIMIT_S, 3 * row.needs_s)))
        table.add(row, found)
        print(f"{row.name}: {' | '.join(filter(None, _cells(found)))}", flush=True)


def main() -> int:
    """Fill the table; 1 where a row failed or is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("gpu_minutes"), metavar="DIR")
    parser.add_argument("--budget-s", type=float, default=570.0, help="seconds of all rows; default: 570")
    parser.add_argument("--device", choices=("cuda", "cpu", "mps"), default="cuda")
    parser.add_argument("--batch", type=int, help="images of a training step; default: 8, quick 2")
    parser.add_argument("--quick", action="store_true", help="the tiny encoder and few images: a rehearsal")
    parser.add_argument("--row", help=argparse.SUPPRESS)  # measure it here
    arguments = parser.parse_args()
    arguments.batch = arguments.batch or (2 if arguments.quick else 8)
    rows = list_rows(arguments.batch, quick=arguments.quick)
    if arguments.row:
        row = next(row for row in rows if row.name == arguments.row)
        return measure_here(row, arguments.device, arguments.quick)
    import torch

    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("There is no GPU here. Rehearse with --device cpu --quick.", file=sys.stderr)
        return 1
    # A call that is ended by a signal leaves no process of a row behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    command = shlex.join(["python", "tests/benchmarks/gpu_minutes.py", *sys.argv[1:]])
    table = Table.opened(arguments.output, describe_machine(arguments.device), command, rows)
    fill_table(
        table, arguments.budget_s, lambda row, limit_s: measure_apart(row, arguments, limit_s), time.perf_counter
    )
    print(f"\n{table.markdown()}")
    complete = all(row.name in table.found and "failed" not in table.found[row.name] for row in rows)
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
