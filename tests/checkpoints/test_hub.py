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

from finetune.checkpoints.hub import HUB_FILES, closest_id

SMALL = "depth-anything/Depth-Anything-V2-Small"
CONTENT = b"the weights"
FETCH = """
import sys
from finetune.checkpoints.hub import HUB_FILES, fetch
from finetune.errors import CheckpointError
try:
    print(fetch(HUB_FILES[sys.argv[1]]).read_bytes())
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
        known = self.path == f"/{SMALL}/resolve/main/{HUB_FILES[SMALL].file}" or "/resolve/" + "1" * 40 in self.path
        self.send_response(200 if known else 404)
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


def test_every_id() -> None:
    assert len(HUB_FILES) == 9
    small = HUB_FILES[SMALL]
    assert (small.file, small.kind, small.max_depth_m, small.license) == (
        "depth_anything_v2_vits.pth",
        "relative",
        None,
        "Apache-2.0",
    )
    large = HUB_FILES["depth-anything/Depth-Anything-V2-Metric-VKITTI-Large"]
    assert (large.file, large.kind, large.encoder, large.max_depth_m, large.license) == (
        "depth_anything_v2_metric_vkitti_vitl.pth",
        "metric",
        "vitl",
        80.0,
        "CC-BY-NC-4.0",
    )
    assert HUB_FILES["depth-anything/Depth-Anything-V2-Metric-Hypersim-Base"].max_depth_m == 20.0


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("depth-anything/Depth-Anything-V2-Small-hf", SMALL),
        ("depth-anything/depth-anything-v2-small", SMALL),
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
