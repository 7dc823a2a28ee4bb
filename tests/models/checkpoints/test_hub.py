"""The hub ids, fetched by real processes from a stand-in of the hub on this machine."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from finetune.models.checkpoints.hub import HUB_FILES, closest_id, fetch_transformers, is_hub_id, published
from finetune.models.checkpoints.load import read_checkpoint
from finetune.utils.errors import CheckpointError

SMALL = "depth-anything/Depth-Anything-V2-Small"
OF_V2 = "depth-anything/Depth-Anything-V2"
METRIC, METRIC_FILE = f"{OF_V2}-Metric", "depth_anything_v2_metric"
CONTENT = b"the weights"
# Of somebody who is not in the table.
THEIRS = {
    "someone/their-depth": ("config.json", "model.safetensors"),
    "someone/whole": (
        "config.json",
        "preprocessor_config.json",
        "finetune.json",
        "finetune_positions.safetensors",
        "model.safetensors",
    ),
    "someone/bin": ("config.json", "preprocessor_config.json", "pytorch_model.bin"),
    "someone/adapter": ("adapter_config.json", "adapter_model.safetensors"),
    "someone/nothing": ("config.json",),
}
FETCH = """
import sys
from finetune.models.checkpoints.hub import HUB_FILES, fetch, fetch_transformers
from finetune.utils.errors import CheckpointError
try:
    known = HUB_FILES.get(sys.argv[1])
    print((fetch(known) if known else fetch_transformers(sys.argv[1])).read_bytes())
except CheckpointError as error:
    sys.exit(str(error))
"""


class HubHandler(BaseHTTPRequestHandler):
    """Answers what hf_hub_download asks of the one file."""

    def do_HEAD(self) -> None:
        self.answer(b"")

    def do_GET(self) -> None:
        self.answer(CONTENT)

    def answer(self, body: bytes) -> None:
        names = {repository: HUB_FILES[repository].files for repository in (SMALL, f"{SMALL}-hf")}
        names |= THEIRS
        paths = [f"/{repository}/resolve/main/{file}" for repository, files in names.items() for file in files]
        known = self.path in paths or "/resolve/" + "1" * 40 in self.path
        self.send_response(200 if known else 404)
        if not known and self.path.split("/resolve/")[0][1:] in names:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("X-Repo-Commit", "1" * 40)
        self.send_header("ETag", f'"{hashlib.sha256(CONTENT).hexdigest()}"')
        self.send_header("Content-Length", str(len(CONTENT) if known else 0))
        self.end_headers()
        if known:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keeps the test's output to the test."""


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), HubHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def fetched(repository: str, endpoint: str, cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", FETCH, repository],
        env={**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "0", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("repository", "file", "kind", "encoder", "version", "max_depth_m", "license_name"),
    [
        (SMALL, "depth_anything_v2_vits.pth", "relative", "vits", "v2", None, "Apache-2.0"),
        (f"{SMALL}-hf", "model.safetensors", "relative", "vits", "v2", None, "Apache-2.0"),
        (f"{OF_V2}-Base", "depth_anything_v2_vitb.pth", "relative", "vitb", "v2", None, "CC-BY-NC-4.0"),
        (f"{OF_V2}-Large-hf", "model.safetensors", "relative", "vitl", "v2", None, "CC-BY-NC-4.0"),
        (f"{METRIC}-VKITTI-Large", f"{METRIC_FILE}_vkitti_vitl.pth", "metric", "vitl", "v2", 80.0, "Apache-2.0"),
        (f"{METRIC}-Hypersim-Base", f"{METRIC_FILE}_hypersim_vitb.pth", "metric", "vitb", "v2", 20.0, "Apache-2.0"),
        (f"{METRIC}-Indoor-Small-hf", "model.safetensors", "metric", "vits", "v2", 20.0, None),
        (f"{METRIC}-Outdoor-Large-hf", "model.safetensors", "metric", "vitl", "v2", 80.0, "Apache-2.0"),
        ("LiheYoung/depth-anything-base-hf", "model.safetensors", "relative", "vitb", "v1", None, "Apache-2.0"),
        ("LiheYoung/depth_anything_vitl14", "pytorch_model.bin", "relative", "vitl", "v1", None, None),
        ("depth-anything/DA3MONO-LARGE", "model.safetensors", "relative_depth", "vitl", "v2", None, "Apache-2.0"),
        ("depth-anything/DA3METRIC-LARGE", "model.safetensors", "metric", "vitl", "v2", 1.0, "Apache-2.0"),
        ("timm/vit_small_patch14_dinov2.lvd142m", "model.safetensors", "encoder", "vits", None, None, "Apache-2.0"),
    ],
)
def test_an_id_of_each_kind(
    repository: str,
    file: str,
    kind: str,
    encoder: str,
    version: str | None,
    max_depth_m: float | None,
    license_name: str | None,
) -> None:
    entry = HUB_FILES[repository]
    assert (entry.file, entry.kind, entry.encoder, entry.version) == (file, kind, encoder, version)
    assert (entry.max_depth_m, entry.license) == (max_depth_m, license_name)


def test_every_id_once_and_with_what_its_kind_needs() -> None:
    assert len(HUB_FILES) == 30
    for entry in HUB_FILES.values():
        assert is_hub_id(entry.repository)
        assert (entry.max_depth_m is not None) == (entry.kind == "metric")
        assert ("config.json" in entry.files) == (entry.repository.endswith("-hf") or "/DA3" in entry.repository)
    # A metric release says Apache-2.0 even where the relative model below it does not.
    assert "CC-BY-NC-4.0" in HUB_FILES[f"{METRIC}-Hypersim-Large"].caveat
    assert not HUB_FILES[f"{METRIC}-Hypersim-Small"].caveat


def test_a_file_name_that_says_which_weights_it_has() -> None:
    found = [published(name) for name in ("depth_anything_v2_vitl.pth", "depth_anything_vits14.pth")]
    assert [entry and (entry.version, entry.encoder) for entry in found] == [("v2", "vitl"), ("v1", "vits")]
    assert published("model.safetensors") is None
    assert published("mine.pth") is None


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("depth-anything/depth-anything-v2-small", SMALL),
        ("depth-anything/Depth-Anything-V2-Small-hff", f"{SMALL}-hf"),
        ("DepthAnything/Depth-Anything-V2-Base", "depth-anything/Depth-Anything-V2-Base"),
        ("weights/dav2_vits.pth", None),
    ],
)
def test_an_id_written_almost_right(written: str, meant: str | None) -> None:
    assert closest_id(written) == meant


def test_fetched_and_then_kept(hub: str, tmp_path: Path) -> None:
    first = fetched(SMALL, hub, tmp_path)
    assert (first.returncode, first.stdout.strip()) == (0, str(CONTENT)), first.stderr
    again = fetched(SMALL, "http://127.0.0.1:9", tmp_path)
    assert (again.returncode, again.stdout.strip()) == (0, str(CONTENT)), again.stderr


def test_what_belongs_beside_the_weights_is_fetched_too(hub: str, tmp_path: Path) -> None:
    run = fetched(f"{SMALL}-hf", hub, tmp_path)
    assert (run.returncode, run.stdout.strip()) == (0, str(CONTENT)), run.stderr
    (weights,) = tmp_path.rglob("model.safetensors")
    written = {path.name for path in weights.parent.iterdir()}
    assert written == {"config.json", "preprocessor_config.json", "model.safetensors"}


def test_an_id_of_somebody_else(hub: str, tmp_path: Path) -> None:
    run = fetched("someone/their-depth", hub, tmp_path)
    assert (run.returncode, run.stdout.strip()) == (0, str(CONTENT)), run.stderr
    # What is not there is remembered, so that nothing is asked of the hub again.
    again = fetched("someone/their-depth", "http://127.0.0.1:9", tmp_path)
    assert (again.returncode, again.stdout.strip()) == (0, str(CONTENT)), again.stderr
    gone = fetched("someone/gone", hub, tmp_path)
    assert (
        gone.stderr.strip()
        .splitlines()[-1]
        .startswith("someone/gone: no such file or folder here, and as a hub id its config.json is not in the cache")
    )
    assert gone.stderr.strip().endswith("files into weights/gone/ and set model.checkpoint: weights/gone.")


def test_a_cache_that_cannot_be_written_is_no_fault_of_the_network(hub: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    done = fetched(SMALL, hub, tmp_path / "file" / "cache")
    assert done.returncode == 1
    assert f"cannot be written to the cache {tmp_path / 'file' / 'cache' / 'hub'} (Not a directory)" in done.stderr
    assert done.stderr.strip().endswith("Free space there, or set HF_HOME to a folder that this user may write to.")


@pytest.mark.parametrize("name", ["someone/whole", "someone/bin", "someone/adapter", "someone/nothing"])
def test_all_that_is_read_of_somebody_else_is_fetched(
    name: str, hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, where the hub's client has read its settings: they are set in it."""
    from huggingface_hub import constants, file_download

    monkeypatch.setattr(constants, "ENDPOINT", hub)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for module in (constants, file_download.constants):
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", hub + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(module, "HF_HUB_CACHE", str(tmp_path))
    if name == "someone/nothing":
        with pytest.raises(CheckpointError, match=r"nothing: holds none of model\.safetensors, pytorch_model"):
            fetch_transformers(name)
        return
    path = fetch_transformers(name)
    assert path.name == THEIRS[name][-1]
    assert {written.name for written in path.parent.iterdir()} == set(THEIRS[name])


def test_what_looks_like_a_path_is_none_of_the_hub_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not is_hub_id("runs/desc")  # where our recipes write to, though it is not there yet
    assert is_hub_id("someone/desc")
    (tmp_path / "runs" / "desk").mkdir(parents=True)
    for path in ("runs/desc", "../x", "./a", "~/x", "runs/desc/", "a/../b", "..", "-a/b", "a/.b", "a/b--c", "a/b.pth"):
        assert not is_hub_id(path), path
    # A clone of the model's own program does not hide the weights of that name.
    (tmp_path / "depth-anything").mkdir()
    assert is_hub_id(SMALL)
    for path in ("runs/desc", "../x", "./a"):
        with pytest.raises(CheckpointError) as caught:
            read_checkpoint(path)
        assert str(caught.value).startswith(f"{path}: no such file. ")
        assert (path == "runs/desc") == str(caught.value).endswith("Did you mean runs/desk.")


@pytest.mark.parametrize("case", ["refused", "offline", "not there"])
def test_what_cannot_be_fetched_is_one_sentence_with_the_file_and_its_place(
    case: str, hub: str, tmp_path: Path
) -> None:
    repository = "depth-anything/Depth-Anything-V2-Base" if case == "not there" else SMALL
    # Port 9 of this machine refuses the connection.
    endpoint = hub if case == "not there" else "http://127.0.0.1:9"
    run = fetched(repository, endpoint, tmp_path, HF_HUB_OFFLINE="1" if case == "offline" else "0")
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    sentence = run.stderr.strip().splitlines()[-1]
    file = HUB_FILES[repository].file
    assert sentence.startswith(f"{repository}: {file} is not in the cache and could not be fetched from {endpoint} (")
    assert sentence.endswith(f"put it into weights/ and set model.checkpoint: weights/{file}.")
