"""The reader of drawn worlds: which frame is which, and what it promises about them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from finetune.data.readers.scenes import Scenes
from finetune.data.sample import DepthSample
from finetune.data.synthetic.cameras import draw_cameras, draw_intrinsics
from finetune.data.synthetic.rng import Rng
from finetune.data.synthetic.textures import CLOUDS, PLAIN, SPECKLE
from finetune.data.synthetic.worlds import draw_worlds
from finetune.utils.errors import RecipeError

SMALL = (56, 70)
FAULTS = {
    "noise": 0.06,
    "blur_px": 1.0,
    "vignette": 0.3,
    "exposure_stops": 0.7,
    "tint": 0.15,
    "jpeg_quality": 40,
    "depth_noise_per_m": 0.003,
    "edge_ratio": 0.1,
    "scan_lines": 20,
}


def assert_equal(one: DepthSample, other: DepthSample) -> None:
    np.testing.assert_array_equal(one.image, other.image)
    np.testing.assert_array_equal(one.depth_m, other.depth_m)
    np.testing.assert_array_equal(one.valid, other.valid)
    assert (one.source, one.camera) == (other.source, other.camera)


@pytest.mark.parametrize(
    "options",
    [{}, FAULTS, {"inner_walls": 0.8, "plain_floors": 0.5, "roll_deg": 20.0}],
    ids=["without faults", "with all faults", "with bare rooms"],
)
def test_a_frame_has_the_same_bits_alone_and_in_any_batch(options: dict[str, float]) -> None:
    def reader(count: int) -> Scenes:
        return Scenes(seed=3, count=count, size=SMALL, outdoors=0.4, **options)  # type: ignore[arg-type]

    indices = [0, 17, 4, 9, 5, 19]
    together = reader(20).batch(indices)
    assert any(np.isinf(frame.depth_m).any() for frame in together)
    for index, frame in zip(indices, together, strict=True):
        assert_equal(reader(20)[index], frame)
    assert_equal(reader(20)[5], reader(20).batch([5, 4])[0])
    assert_equal(reader(5)[4], together[2])


def test_a_frame_has_the_same_bits_with_any_number_of_threads() -> None:
    # Large enough that torch shares the work among its threads.
    reader = Scenes(seed=3, size=(168, 224), outdoors=0.5, **FAULTS)  # type: ignore[arg-type]
    before = torch.get_num_threads()
    try:
        frames = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            frames.append(reader.batch([4, 6]))
    finally:
        torch.set_num_threads(before)
    for one, other in zip(*frames, strict=True):
        assert_equal(one, other)


def test_frames_and_seeds_differ() -> None:
    reader, other = Scenes(seed=0, size=SMALL), Scenes(seed=1, size=SMALL)
    for one, two in ((reader[0], reader[1]), (reader[0], other[0]), (reader[1], other[0])):
        assert np.median(np.abs(one.depth_m - two.depth_m)) > 0.05


def test_inner_walls_are_in_rooms_alone_and_there_in_all_that_ask_for_them() -> None:
    plain, asked = (Scenes(seed=3, size=SMALL, inner_walls=share) for share in (0.0, 1.0))
    assert_equal(Scenes(seed=3, size=SMALL)[2], plain[2])
    rng = Rng(3, range(32))
    worlds = draw_worlds(rng, objects=plain.objects, outdoors=0.5, inner_walls=1.0)
    # The paint of walls is that of the first of the room's six faces.
    walls = worlds.material == worlds.materials.pattern.shape[1] - 6
    assert torch.equal(walls.any(1), ~worlds.solids.outdoors)
    assert walls.sum() > walls.any(1).sum()
    for index in range(3):
        assert (plain[index].depth_m != asked[index].depth_m).any()


def test_plain_floors_are_as_many_as_asked_for_half_of_them_in_a_wall_s_color() -> None:
    plain, asked = (Scenes(seed=3, size=SMALL, plain_floors=share) for share in (0.0, 1.0))
    assert_equal(Scenes(seed=3, size=SMALL)[2], plain[2])

    def room(share: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        worlds = draw_worlds(Rng(3, range(400)), objects=(1, 2), outdoors=0.3, plain_floors=share)
        pattern, color = worlds.materials.pattern[:, -6:], worlds.materials.color[:, -6:]
        return worlds.solids.outdoors, pattern[:, 4], color

    outdoors, before, _ = room(0.0)
    smooth = torch.tensor([PLAIN, CLOUDS, SPECKLE])
    for share in (0.4, 1.0):
        _, floor, color = room(share)
        assert torch.equal(floor[outdoors], before[outdoors])
        changed = floor[~outdoors] != before[~outdoors]
        assert 0.5 * share < changed.float().mean() < share
    assert torch.isin(floor[~outdoors], smooth).all()
    # The color of a wall, darker or brighter: the same ratio in all channels.
    ratio = color[:, None, 4] / color[:, :4]
    alike = ((ratio.amax(-1) / ratio.amin(-1)) < 1.0001).any(1)[~outdoors]
    assert 0.4 < alike.float().mean() < 0.6
    for index in range(3):
        assert (plain[index].image != asked[index].image).any()


def test_frames_are_named_by_seed_and_number() -> None:
    reader = Scenes(seed=7, count=3, size=SMALL)
    assert reader.source(2) == reader[2].source == "scenes:seed=7#2"
    assert len(reader) == 3
    for outside in (3, -1):
        with pytest.raises(IndexError):
            reader[outside]


def test_images_are_well_exposed_and_depth_is_that_of_a_room() -> None:
    frames = Scenes(seed=5, size=SMALL).batch(list(range(24)))
    medians = np.array([np.median(frame.depth_m) for frame in frames])
    for frame in frames:
        assert frame.image.shape == (*SMALL, 3) and frame.image.dtype == np.uint8
        assert 80 < frame.image.mean() < 190 and frame.image.std() > 8
        assert frame.valid.all() and frame.depth_m.min() > 0.05 and frame.depth_m.max() < math.hypot(10.0, 10.0, 4.5)
    assert medians.min() < 1.5 and medians.max() > 3.0


def test_the_camera_has_a_field_of_view_from_the_range() -> None:
    frames = Scenes(seed=2, size=SMALL, hfov_deg=(60.0, 62.0)).batch([0, 1, 2, 3])
    widths = set()
    for frame in frames:
        assert frame.camera is not None
        hfov_deg = 2 * math.degrees(math.atan(35 / frame.camera.fx_px))
        assert 60.0 <= hfov_deg <= 62.0
        assert (frame.camera.cx_px, frame.camera.cy_px) == (34.5, 27.5)
        assert frame.camera.fy_px == frame.camera.fx_px
        widths.add(frame.camera.fx_px)
    assert len(widths) == 4


@pytest.mark.parametrize("outdoors", [0.0, 1.0])
def test_the_floor_is_flat_by_the_camera_that_a_frame_carries(outdoors: float) -> None:
    reader = Scenes(seed=6, size=SMALL, outdoors=outdoors)
    rng = Rng(6, range(6))
    worlds = draw_worlds(rng, objects=reader.objects, outdoors=outdoors)
    cameras = draw_cameras(rng, worlds, *draw_intrinsics(rng, *SMALL, reader.hfov_deg))
    on_floor = 0
    for number, frame in enumerate(reader.batch(range(6))):
        assert frame.camera is not None
        depth_m = np.where(np.isinf(frame.depth_m), np.float32(0.0), frame.depth_m)
        axes = torch.stack([part[number] for part in cameras.axes]).double().numpy()
        points = frame.camera.back_project(depth_m) @ axes + cameras.place_m[number].double().numpy()
        # Nothing is below the floor, z = 0, and much is on it.
        close = 1e-6 * depth_m + 1e-5
        assert (points[..., 2] > -close).all()
        on_floor += int((np.abs(points[..., 2]) < close)[depth_m > 0].sum())
    assert on_floor > 0.1 * 6 * SMALL[0] * SMALL[1]


def test_beyond_max_depth_is_not_valid() -> None:
    near, far = Scenes(seed=5, size=SMALL, max_depth_m=2.0)[0], Scenes(seed=5, size=SMALL)[0]
    np.testing.assert_array_equal(near.valid, far.depth_m <= 2.0)
    assert 0 < near.valid.mean() < 1
    noisy = Scenes(seed=5, size=SMALL, max_depth_m=2.0, depth_noise_per_m=0.05)[0]
    np.testing.assert_array_equal(noisy.valid, noisy.depth_m <= 2.0)
    assert (noisy.valid != near.valid).any()


def test_the_sky_is_infinitely_far_and_valid_but_with_a_largest_depth() -> None:
    open_air = Scenes(seed=5, size=SMALL, outdoors=1.0).batch(range(8))
    limited = Scenes(seed=5, size=SMALL, outdoors=1.0, max_depth_m=50.0).batch(range(8))
    sky = np.stack([np.isinf(frame.depth_m) for frame in open_air])
    assert 0.1 < sky.mean() < 0.7
    for whole, cut in zip(open_air, limited, strict=True):
        assert whole.valid.all() and whole.depth_m.min() > 0
        np.testing.assert_array_equal(cut.valid, whole.depth_m <= 50.0)
    # It is above: no column has ground or a house over sky it would stand on.
    assert sky[:, 0].mean() > 0.3 and sky[:, -1].mean() < 0.1


def test_the_share_of_open_ground_is_as_asked_for() -> None:
    frames = Scenes(seed=9, size=(14, 14), outdoors=0.25).batch(range(96))
    share = np.mean([frame.depth_m.max() > math.hypot(10.0, 10.0, 4.5) for frame in frames])
    assert 0.15 < share < 0.35


def test_a_room_may_be_empty() -> None:
    # About half of them are; the camera then looks at the middle.
    for frame in Scenes(seed=5, size=SMALL, objects=(0, 1)).batch(list(range(8))):
        assert frame.valid.all() and frame.depth_m.max() > 1.0


def test_compression_changes_the_image_a_little_and_nothing_else() -> None:
    plain = Scenes(seed=1, size=SMALL).batch(range(8))
    packed = Scenes(seed=1, size=SMALL, jpeg_quality=30).batch(range(8))
    apart = []
    for one, other in zip(plain, packed, strict=True):
        np.testing.assert_array_equal(one.depth_m, other.depth_m)
        apart.append(np.abs(one.image.astype(int) - other.image).mean())
    assert 0 < min(apart) < max(apart) < 12
    finest = Scenes(seed=1, size=SMALL, jpeg_quality=100)[0]
    assert np.abs(plain[0].image.astype(int) - finest.image).mean() < 0.5 * apart[0]


def test_each_fault_of_the_color_camera_changes_the_image_and_not_the_depth() -> None:
    plain = Scenes(seed=1, size=SMALL)[0]
    for name in ("noise", "blur_px", "vignette", "exposure_stops", "tint"):
        faulty = Scenes(seed=1, size=SMALL, **{name: 0.8})[0]  # type: ignore[arg-type]
        assert (faulty.image != plain.image).any(), name
        np.testing.assert_array_equal(faulty.depth_m, plain.depth_m)
        assert faulty.valid.all()


def test_depth_is_lost_beside_steps_and_kept_elsewhere() -> None:
    for whole, frame in zip(
        Scenes(seed=5, size=SMALL, outdoors=0.5).batch(range(6)),
        Scenes(seed=5, size=SMALL, outdoors=0.5, edge_ratio=0.2).batch(range(6)),
        strict=True,
    ):
        np.testing.assert_array_equal(whole.depth_m, frame.depth_m)
        around = np.lib.stride_tricks.sliding_window_view(whole.depth_m.astype(np.float64), (3, 3))
        step = around.max((2, 3)) > 1.2 * around.min((2, 3))
        # Within float32 of the ratio either is right.
        unsure = np.isclose(around.max((2, 3)), 1.2 * around.min((2, 3)), rtol=1e-6)
        inner = frame.valid[1:-1, 1:-1]
        np.testing.assert_array_equal(inner[~unsure], ~step[~unsure])
        assert 0 < step.mean() < 0.6


def test_depth_noise_grows_with_the_square_of_depth() -> None:
    plain = Scenes(seed=5, size=(112, 154)).batch(range(4))
    noisy = Scenes(seed=5, size=(112, 154), depth_noise_per_m=0.01).batch(range(4))
    depth_m = np.concatenate([frame.depth_m for frame in plain])
    error = np.concatenate([frame.depth_m for frame in noisy]) - depth_m
    for low_m, high_m in ((1.0, 1.5), (2.0, 2.5), (3.0, 4.0)):
        part = (depth_m > low_m) & (depth_m < high_m)
        assert part.sum() > 1000
        assert (error[part] / depth_m[part] ** 2).std() == pytest.approx(0.01, rel=0.1)
    assert all(frame.valid.all() for frame in noisy)


def test_exactly_so_many_scan_lines_are_left() -> None:
    for lines in (1, 8, 56):
        frame = Scenes(seed=5, size=SMALL, scan_lines=lines)[0]
        rows = frame.valid.any(1)
        assert rows.sum() == lines
        assert frame.valid[rows].all()


def test_the_sky_survives_noise_and_holes() -> None:
    options = {"seed": 5, "size": SMALL, "outdoors": 1.0}
    for plain, frame in zip(
        Scenes(**options).batch(range(4)),  # type: ignore[arg-type]
        Scenes(**options, depth_noise_per_m=0.01, edge_ratio=0.1).batch(range(4)),  # type: ignore[arg-type]
        strict=True,
    ):
        np.testing.assert_array_equal(np.isinf(frame.depth_m), np.isinf(plain.depth_m))
        assert not np.isnan(frame.depth_m).any()
        if (sky := np.isinf(plain.depth_m)).mean() > 0.2:
            assert frame.valid[sky].mean() > 0.5


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", -1),
        ("count", 0),
        ("size", (0, 320)),
        ("camera_height_m", (0.9, 0.4)),
        ("camera_height_m", (0.0, 0.4)),
        ("camera_height_m", (0.4, 2.5)),
        ("look_down_deg", (25.0, 5.0)),
        ("look_down_deg", (5.0, 60.0)),
        ("roll_deg", -1.0),
        ("roll_deg", 46.0),
        ("roll_deg", math.nan),
        ("hfov_deg", (80.0, 50.0)),
        ("hfov_deg", (50.0, 170.0)),
        ("max_depth_m", 0.0),
        ("max_depth_m", math.nan),
        ("objects", (5, 4)),
        ("objects", (0, 0)),
        ("objects", (0, 31)),
        *(
            (name, value)
            for name in ("outdoors", "inner_walls", "plain_floors", "noise")
            for value in (-0.1, 1.1, math.nan)
        ),
        *((name, value) for name in ("vignette", "tint") for value in (-0.1, 1.1, math.nan)),
        *((name, value) for name in ("blur_px", "exposure_stops", "depth_noise_per_m") for value in (-0.1, 4.1)),
        ("jpeg_quality", 0),
        ("jpeg_quality", 101),
        ("edge_ratio", 0.0),
        ("edge_ratio", math.nan),
        ("scan_lines", 0),
        ("scan_lines", 241),
    ],
)
def test_options_out_of_range_are_named(key: str, value: object) -> None:
    options: dict[str, object] = {"count": 3, key: value}
    with pytest.raises(RecipeError) as caught:
        Scenes(**options)  # type: ignore[arg-type]
    assert caught.value.key == key


def test_options_are_kept_as_given() -> None:
    reader = Scenes(size=SMALL, outdoors=0.4, **FAULTS)  # type: ignore[arg-type]
    written = dataclasses.asdict(reader)
    assert {name: written[name] for name in FAULTS} == FAULTS
