"""The lines that build an engine: what trtexec is called with, by a stand-in, since there is no TensorRT here."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from finetune.export.build_script import EngineBuild
from finetune.export.options import ExportOptions


def call(tmp_path: Path, build: EngineBuild, version: str, model: str = "m.onnx") -> tuple[int, list[str]]:
    """Exit status, and the arguments of each program that the script starts."""
    folder, programs = tmp_path / "m.check", tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    programs.mkdir(exist_ok=True)
    said = tmp_path / "said"
    said.write_text("")
    for name in ("trtexec", "python3"):
        (programs / name).write_text(f'#!/bin/sh\nfor i in {name} "$@"; do echo "$i"; done >> {said}\n')
        (programs / name).chmod(0o755)
    build.write_script(folder, model, (126, 168))
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", str(folder / "build_engine.sh"), version], env={**os.environ, "PATH": path}, check=False, timeout=60
    )
    return done.returncode, said.read_text().splitlines()


@pytest.mark.parametrize(
    ("version", "flags"),
    [
        ("8.6.1", ["--fp16", "--precisionConstraints=obey", "--layerPrecisions=*:fp16,norm:fp32,last:fp32"]),
        ("10.3", ["--stronglyTyped"]),
        ("11", []),
    ],
)
def test_each_version_is_told_of_the_types_in_its_way(version: str, flags: list[str], tmp_path: Path) -> None:
    build = EngineBuild(ExportOptions(precision="mixed"), ["norm", "last"], has_focal=False)
    status, said = call(tmp_path, build, version, "it's $HOME & co.onnx")
    assert status == 0
    files = ["--onnx=../it's $HOME & co.onnx", "--saveEngine=../it's $HOME & co.engine"]
    assert said == ["trtexec", *files, *flags, "python3", "check_engine.py", "../it's $HOME & co.engine"]


def test_float32_needs_no_types(tmp_path: Path) -> None:
    build = EngineBuild(ExportOptions(), [], has_focal=True)
    assert "--fp16" not in call(tmp_path, build, "8.6")[1]


def test_what_may_vary_gets_its_range(tmp_path: Path) -> None:
    options = ExportOptions(dynamic=True, batch="any", input_type="uint8")
    _, said = call(tmp_path, EngineBuild(options, [], has_focal=True), "11")
    assert [argument for argument in said if "Shapes" in argument] == [
        "--minShapes=image:1x112x112x3,focal_px:1",
        "--optShapes=image:1x126x168x3,focal_px:1",
        "--maxShapes=image:4x182x182x3,focal_px:4",
    ]


def test_another_version_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    build = EngineBuild(ExportOptions(), [], has_focal=False)
    for version in ("", "7", "9.1", "1"):
        assert call(tmp_path, build, version) == (2, [])


def test_every_line_says_that_it_is_untried(tmp_path: Path) -> None:
    call(tmp_path, EngineBuild(ExportOptions(), [], has_focal=False), "11")
    lines = (tmp_path / "m.check" / "build_engine.sh").read_text().splitlines()
    assert [("untried" in line) for line in lines if line[:1].isdecimal()] == [True] * 3
