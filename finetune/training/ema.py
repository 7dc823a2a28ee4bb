"""An average of the weights over the steps of a run, steadier than the weights of any one step."""

from __future__ import annotations

import copy
from pathlib import Path

from safetensors.torch import load_model, save_model
from torch.optim.swa_utils import get_ema_multi_avg_fn

from finetune.models.depth_model import DepthModel

AVERAGE_FILE = "average.safetensors"


class AverageWeights:
    """Exponential moving average of a network's weights."""

    def __init__(self, network: DepthModel, decay: float) -> None:
        """
        Args:
            network: as it starts, before Accelerate prepares it. A copy of a prepared network would predict with the
                weights of the original.
            decay: share of the average that a step keeps once many are taken, from 0 to 1.
        """
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self._decay = decay

    def restart(self, network: DepthModel) -> None:
        """Begin again from the weights of ``network``, as they are now."""
        self.network.load_state_dict(network.state_dict())

    def update(self, network: DepthModel, step: int) -> None:
        """
        Move the average towards the weights after a step.

        Args:
            network: the one that is trained.
            step: optimizer steps taken, from 1. The decay after it is at most (1 + step) / (10 + step), so that the
                start does not outweigh a short run; source: TensorFlow's ExponentialMovingAverage with num_updates.
        """
        decay = min(self._decay, (1 + step) / (10 + step))
        get_ema_multi_avg_fn(decay)(list(self.network.parameters()), list(network.parameters()), step)

    def save(self, folder: Path) -> None:
        """Write the average into a resume point."""
        save_model(self.network, str(folder / AVERAGE_FILE))

    def load(self, folder: Path) -> None:
        """Read the average of a resume point."""
        load_model(self.network, folder / AVERAGE_FILE)
