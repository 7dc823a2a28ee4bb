"""Heads, which turn decoder features into one number for each pixel: meters, or depth or its inverse without a unit."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finetune.utils.kinds import Activation

FEATURES = 32  # channels that the last layer reads, in all sizes


class RelativeHead(nn.Module):
    """Inverse depth, >= 0, of unknown scale and shift; bigger is nearer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // 2, 3, padding=1)
        self.refine = nn.Conv2d(channels // 2, FEATURES, 3, padding=1)
        self.last = nn.Conv2d(FEATURES, 1, 1)

    def features(self, decoded: Tensor, size: tuple[int, int]) -> Tensor:
        """
        Args:
            decoded: (B, channels, h, w).
            size: height and width of the prediction.

        Returns:
            (B, 32, *size), >= 0: what the last layer, a 1x1 convolution, reads.
        """
        x = F.interpolate(self.reduce(decoded), size=size, mode="bilinear", align_corners=True)
        return F.relu(self.refine(x), inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        """
        Args:
            features: (B, 32, H, W), of any floating type.

        Returns:
            (B, 1, H, W) float32, also under autocast: 8 bits of mantissa are centimeters at 10 m.
        """
        with torch.autocast(features.device.type, enabled=False):
            return self.activate(self.last(features.float()))

    def activate(self, x: Tensor) -> Tensor:
        return F.relu(x)


class RelativeDepthHead(RelativeHead):
    """Depth, > 0, of unknown scale and shift; bigger is farther. The layers are those of ``RelativeHead``.

    Source: Depth Anything 3, arXiv:2511.10647, and its package: the last activation is an exponential.
    """

    def activate(self, x: Tensor) -> Tensor:
        return x.exp()


class MetricHead(RelativeHead):
    """Meters along the optical axis; bigger is farther.

    With a sigmoid they are between 0 and ``max_depth_m``. With an exponential they have no upper end, and
    ``max_depth_m`` is the depth that an output of 0 of the last layer stands for. The layers are those of
    ``RelativeHead``.
    """

    def __init__(self, channels: int, max_depth_m: float, activation: Activation = "sigmoid") -> None:
        super().__init__(channels)
        self.max_depth_m = max_depth_m
        self.activation = activation

    def activate(self, x: Tensor) -> Tensor:
        return self.max_depth_m * (x.exp() if self.activation == "exp" else torch.sigmoid(x))


def make_head(channels: int, max_depth_m: float | None, activation: Activation) -> RelativeHead:
    """The head of a metric network, or without ``max_depth_m`` that of a relative one."""
    if max_depth_m is not None:
        return MetricHead(channels, max_depth_m, activation)
    return RelativeDepthHead(channels) if activation == "exp" else RelativeHead(channels)
