"""What a person sees who types something wrong: one clear sentence, exit status 2, no traceback."""

import gc
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from finetune import __main__
from finetune.commands import evaluate, export, predict, train
from finetune.commands.runner import import_without_gc

ROOT = Path(__file__).resolve().parents[1]
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("ACCELERATE", "LOCAL", "RANK"))}

# (what to replace in the recipe, by what; overrides; what the sentence must say)
WRONG = [
    ("loss:", "losses: []\nloss:", [], ["small.yaml:9", "losses", "loss"]),
    ("kind: silog", "kind: silog, lamda: 0.5", [], ["small.yaml:9", "loss.0.lamda", "lam"]),
    ("name: small", "name: small\nname: again", [], ["small.yaml:2", "name"]),
    ("optim: {", "optim: {lr: 1.0e-3, ", [], ["small.yaml:10", "optim.lr"]),
    ("steps: 6", "steps: many", [], ["small.yaml:11", "run.steps", "many"]),
    ("input_size: [56, 70]", "input_size: 56", [], ["small.yaml:5", "data.input_size", "56"]),
    ("batch_size: 4", "batch_size: 0", [], ["small.yaml:11", "run.batch_size", "0"]),
    ("max_depth_m: 10.0", "max_depth_m: -1.0", [], ["small.yaml:3", "model.max_depth_m", "-1"]),
    ("steps: 6", "steps: 6, epochs: 2", [], ["small.yaml:11", "run.epochs", "run.steps"]),
    ("input_size: [56, 70]", "input_size: [56, 71]", [], ["small.yaml:5", "70 or 84"]),
    ("input_size: [56, 70]", "input_size: [100, 70]", [], ["small.yaml:5", "98 or 112"]),
    ("list: val.txt", "list: vall.txt", [], ["small.yaml:7", "data.val.0.list", "vall.txt"]),
    ("tiny_relative.safetensors", "tiny_relativ.safetensors", [], ["small.yaml:3", "model.checkpoint", "exists"]),
    ("name: small", "name: ${UNDEFINED_NAME}", [], ["small.yaml:1", "UNDEFINED_NAME"]),
    ("steps: 6", "steps: ${UNDEFINED_STEPS}", [], ["small.yaml:11", "UNDEFINED_STEPS"]),
    ("", "", ["optim.lrr=1e-5"], ["command line", "optim.lrr", "lr"]),
    ("", "", ["data.train.7.root=/x"], ["command line", "data.train.7"]),
    ("", "", ["model.encoder=vits"], ["tiny_relative.safetensors", "tiny", "model.encoder"]),
    ("", "", ["model.encoder=vitl"], ["tiny_relative.safetensors", "tiny", "model.encoder"]),
    ("", "", ["model.lora.targets=[qkv,qkv]"], ["command line", "model.lora.targets", "each name once"]),
    ("", "", ["model.max_depth_m=7.5", "export=[huggingface]"], ["format huggingface", "whole meters", "7 or 8"]),
    ("", "", ["model.on_max_depth=rescale"], ["command line: model.on_max_depth", "no predictions to scale"]),
]


@pytest.mark.parametrize(("old", "new", "overrides", "expected"), WRONG)
def test_a_wrong_recipe_is_one_sentence_and_exit_2(
    recipe: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, overrides: list[str], expected: list[str]
) -> None:
    recipe.write_text(recipe.read_text().replace(old, new, 1) if old else recipe.read_text())
    assert train.main([str(recipe), *overrides]) == 2
    said = capsys.readouterr().err
    assert said.startswith("finetune stopped: ")
    assert said.count("\n") == 1
    assert all(part in said for part in expected), said
    assert "Traceback" not in said


def typed(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, env=CLEAN, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("command", "override", "expected"),
    [
        (["-m", "finetune", "train"], "optim.lrr=1e-5", "Did you mean"),
        (["-m", "finetune", "train"], "run.steps=0", "run.steps"),
        ([str(ROOT / "finetune" / "train.py")], "data.input_size=[56,71]", "70 or 84"),
        ([str(ROOT / "finetune" / "train.py")], "model.checkpoint=missing.pth", "missing.pth"),
        ([str(ROOT / "finetune" / "train.py")], "no_equals_sign", "no_equals_sign"),
    ],
)
def test_as_typed(recipe: Path, command: list[str], override: str, expected: str, tmp_path: Path) -> None:
    # From a folder of its own: what is run as a file must find the package by itself.
    folder = ROOT if "-m" in command else tmp_path
    done = typed(sys.executable, *command, str(recipe), override, cwd=folder)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("finetune stopped: command line")
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_recipe_is_answered_before_anything_heavy_is_imported(recipe: Path) -> None:
    program = (
        "import sys; from finetune.commands.train import main; "
        f"assert main([{str(recipe)!r}, 'optim.lrr=1']) == 2; "
        "heavy = {'torch', 'timm', 'accelerate', 'albumentations', 'transformers'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    done = typed(sys.executable, "-c", program)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_what_takes_seconds_to_import_waits_for_who_needs_it_and_is_never_looked_for_garbage() -> None:
    program = (
        "import gc, sys; from finetune.commands.runner import import_without_gc\n"
        "with import_without_gc():\n"
        "    import finetune.training.run_training, finetune.training.evaluate, finetune.inference.batch\n"
        "early = {'peft', 'albumentations', 'transformers'} & set(sys.modules); assert not early, early\n"
        "assert gc.isenabled()\n"
        "watched, left_out = len(gc.get_objects()), gc.get_freeze_count()\n"
        "assert left_out > 100 * watched, (left_out, watched)\n"
    )
    done = typed(sys.executable, "-c", program)
    assert done.returncode == 0, done.stderr
    # What stays out of the collections to the very end is listed there as leaked, in thirty lines.
    assert not done.stderr


def test_imports_leave_the_garbage_collector_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", sys)  # as after a first command of this process
    left_out = gc.get_freeze_count()
    with pytest.raises(ModuleNotFoundError), import_without_gc():
        assert not gc.isenabled()
        raise ModuleNotFoundError
    assert gc.isenabled()
    assert gc.get_freeze_count() == left_out
    gc.disable()
    try:
        with import_without_gc():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize("name", [None, *__main__.COMMANDS])
def test_help_names_the_commands_and_imports_nothing_heavy(name: str | None) -> None:
    program = (
        "import sys; from finetune.__main__ import main\n"
        f"try:\n    status = main({[name, '--help'] if name else ['--help']!r})\n"
        "except SystemExit as stop:\n    status = stop.code\n"
        "assert not status, status\n"
        "assert not {'torch', 'numpy', 'pydantic', 'yaml'} & set(sys.modules), sorted(sys.modules)"
    )
    done = typed(sys.executable, "-c", program)
    assert done.returncode == 0, done.stderr
    assert (name or "train") in done.stdout


def test_finetune_alone_shows_the_commands_and_a_first_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main([]) == 2
    lines = capsys.readouterr().out.splitlines()
    described = [line.split(maxsplit=1) for line in lines[2 : 2 + len(__main__.COMMANDS)]]
    assert [name for name, _ in described] == list(__main__.COMMANDS)
    assert all(purpose for _, purpose in described)
    assert lines[-4:-2] == [f"  {line}" for line in __main__.FIRST_RUN]
    for line in __main__.FIRST_RUN:
        parsed(line)
    assert len(lines) < 24, "it fits on a screen"


# The kinds of prepare have an example each: tests/prepare/test_every_kind.py.
@pytest.mark.parametrize("name", [name for name in __main__.COMMANDS if name != "prepare"])
def test_help_ends_with_an_example_that_the_command_understands(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = __main__.import_command(name)
    example = command.make_parser().example
    with pytest.raises(SystemExit) as stop:
        command.main(["--help"])
    assert not stop.value.code
    assert capsys.readouterr().out.endswith(f"\nexample:\n  {example}\n")
    arguments = parsed(example)
    for file in [word for word in example.split() if word.startswith(("recipes/", "data/"))]:
        assert (ROOT / file).is_file(), file
    assert arguments.get("overrides", []) == [word for word in example.split() if "=" in word]


def parsed(line: str) -> dict[str, object]:
    """What ``finetune COMMAND ...`` understands of a call."""
    program, name, *words = line.split()
    assert program == "finetune"
    return vars(__main__.import_command(name).make_parser().parse_intermixed_args(words))


def test_an_unknown_command_names_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(["trian"]) == 2
    assert capsys.readouterr().err.endswith("export. Did you mean train?\n")
    assert __main__.main(["--verison"]) == 2
    assert capsys.readouterr().err.endswith("Did you mean --version?\n")
    assert __main__.main(["x" * 300]) == 2
    assert "Did you mean" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "words", "meant"),
    [
        (train, ["recipe.yaml", "--overwite"], " Did you mean --overwrite?"),
        (evaluate, ["a", "--recipe", "b", "--protocl=plain"], " Did you mean --protocol?"),
        (predict, ["a", "b", "--output", "c", "--skip_existing", "--what"], " Did you mean --skip-existing?"),
        (predict, ["a", "b", "--output", "c", "--zzz"], ""),
        # The sentence begins with an option that there is.
        (export, ["a", "--to", "onnx", "--output", "c", "--resize"], ""),
        (train, [], ""),
    ],
)
def test_a_misspelled_option_names_the_one_that_was_meant(
    command: ModuleType, words: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        command.main(words)
    assert stop.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("finetune stopped: ") and last.count("Did you mean") == bool(meant)
    assert last.endswith(f".{meant} finetune {command.__name__.rpartition('.')[2]} --help says more.")


# In the order in which one reads what another wrote. FINE is the run folder, IMAGE one that can be read. After each,
# what is to stand on standard error.
AS_TYPED = {
    "--version": "",
    **{f"{name} --help": "" for name in __main__.COMMANDS},
    "check RECIPE --no-step --json check.json --html check.html": "",
    "train RECIPE run.steps=2 optim.warmup_steps=1": "",
    "evaluate FINE --recipe RECIPE --html evaluation.html": "",
    "predict FINE IMAGE --output out --points --hfov 60": "",
    "export FINE --to official --output fine.pth": "runs/small: license Apache-2.0\n",
    "calibrate FINE --recipe RECIPE --output calibrated.safetensors": "",
    "compare FINE runs/other": "",
    # One that ends after all was imported.
    "evaluate FINE --recipe RECIPE data.val.0.list=broken.txt": (
        "finetune stopped: ROOT/broken.txt:1: ROOT/small.txt does not exist. "
        "Correct the line, or the folder its paths start from.\n"
    ),
}


@pytest.mark.slow
def test_nothing_follows_the_last_sentence_of_a_command(frames: Path, recipe: Path, tmp_path: Path) -> None:
    # Nor may what only our own settings keep quiet.
    environment = {name: value for name, value in CLEAN.items() if name != "NO_ALBUMENTATIONS_UPDATE"}
    environment["PYTHONPATH"] = str(ROOT)
    (frames / "broken.txt").write_text("00.jpg small.txt\n")
    puts = {"RECIPE": str(recipe), "FINE": "runs/small", "IMAGE": str(frames / "00.jpg"), "ROOT": str(frames)}
    for line, said in AS_TYPED.items():
        for word, put in puts.items():
            line, said = line.replace(word, put), said.replace(word, put)
        if line.startswith("compare runs/small"):
            shutil.copytree(tmp_path / "runs/small", tmp_path / "runs/other")
        words = [sys.executable, "-m", "finetune", *line.split()]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert (done.stderr, bool(done.returncode)) == (said, said.startswith("finetune stopped")), line
        assert done.stdout or done.returncode, line


@pytest.mark.slow
def test_the_launcher_trains_from_any_folder(recipe: Path, tmp_path: Path) -> None:
    done = typed(
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        str(ROOT / "finetune" / "train.py"),
        str(recipe),
        "run.steps=2",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "finetuned" in done.stdout
    assert (tmp_path / "runs" / "small" / "best" / "model.safetensors").exists()
