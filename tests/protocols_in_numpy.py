"""The protocols written down once more, with NumPy alone and nothing of the library: what it is held against."""

from collections.abc import Sequence

import numpy as np

Pair = tuple[np.ndarray, np.ndarray]  # prediction and measurement in meters, 0 where nothing was measured

RANGES = {
    "nyu_eigen": (0.001, 10.0),
    "kitti_eigen_garg": (0.001, 80.0),
    "kitti_garg_full": (0.001, 80.0),
    "kitti_eigen": (0.001, 80.0),
}


def table(base: str, align: str, average: str, pairs: Sequence[Pair], most: float) -> dict[str, float]:
    """Metrics of a protocol over all pairs; ``most`` is the far end of the range where the protocol has none."""
    near, far = RANGES.get(base, (0.001, most))
    compared = []
    for pred, target in pairs:
        if base in ("kitti_eigen_garg", "kitti_eigen"):
            rows, left = target.shape[0] - 352, (target.shape[1] - 1216) // 2
            pred, target = pred[rows:, left : left + 1216], target[rows:, left : left + 1216]
        keep = target > 0
        strict = base in RANGES
        keep &= ((target > near) & (target < far)) if strict else ((target >= near) & (target <= far))
        inside = np.zeros(target.shape, bool)
        height, width = target.shape
        if base == "nyu_eigen":
            inside[45:471, 41:601] = True
        elif base in ("kitti_eigen_garg", "kitti_garg_full"):
            inside[
                int(0.40810811 * height) : int(0.99189189 * height), int(0.03594771 * width) : int(0.96405229 * width)
            ] = True
        elif base == "kitti_eigen":
            inside[
                int(0.3324324 * height) : int(0.91351351 * height), int(0.0359477 * width) : int(0.96405229 * width)
            ] = True
        else:
            inside[:] = True
        keep &= inside
        if keep.sum() < (10 if base == "reference_script" else 1):
            continue
        p, t = pred[keep].astype(np.float64), target[keep].astype(np.float64)
        p = aligned(p, t, align, near, far)
        compared.append(
            (np.maximum(p, 1e-6) if base == "reference_script" else np.minimum(np.maximum(p, near), far), t)
        )
    if average == "pixel":
        compared = [(np.concatenate([p for p, _ in compared]), np.concatenate([t for _, t in compared]))]
    of_images = [metrics(p, t, base == "reference_script") for p, t in compared]
    return {name: float(np.mean([one[name] for one in of_images])) for name in of_images[0]}


def aligned(p: np.ndarray, t: np.ndarray, align: str, near: float, far: float) -> np.ndarray:
    if align == "median":
        return p * np.median(t) / np.median(p)
    if align == "scale":
        return p * np.linalg.lstsq(p[:, None], t, rcond=None)[0][0]
    if align == "scale_shift":
        return np.polyval(line(p, t), p)
    if align == "scale_shift_inverse":
        inverse = 1 / np.maximum(p, 1e-6)
        return 1 / np.clip(np.polyval(line(inverse, 1 / t), inverse), 1 / far, 1 / near)
    return p


def line(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Slope and intercept; a slope below 0 becomes a constant."""
    found = np.linalg.lstsq(np.stack([x, np.ones_like(x)], axis=1), y, rcond=None)[0]
    return found if found[0] > 0 else np.array([0.0, y.mean()])


def metrics(p: np.ndarray, t: np.ndarray, reference: bool) -> dict[str, float]:
    e = np.log(p) - np.log(t)
    ratio = np.maximum(p / t, t / p)
    variance = np.mean(e**2) - (0.5 if reference else 1.0) * np.mean(e) ** 2
    return {
        "abs_rel": np.mean(np.abs(p - t) / t),
        "sq_rel": np.mean((p - t) ** 2 / t),
        "rmse": np.sqrt(np.mean((p - t) ** 2)),
        "rmse_log": np.sqrt(np.mean(e**2)),
        "log10": np.mean(np.abs(np.log10(p / t))),
        "silog": (1 if reference else 100) * np.sqrt(variance),
        "delta1": np.mean(ratio < 1.25),
        "delta2": np.mean(ratio < 1.25**2),
        "delta3": np.mean(ratio < 1.25**3),
    }
