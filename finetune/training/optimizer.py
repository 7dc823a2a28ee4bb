"""The optimizer's groups, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from finetune.models.arithmetic import has_fused_adamw
from finetune.models.depth_model import DepthModel
from finetune.recipe.schema import Recipe

SHAPES: dict[str, Callable[[float], float]] = {
    # Power 0.9 as in DeepLab, Chen et al. 2016, arXiv:1606.00915, section 4.1.2; the reference training script's too.
    "poly": lambda progress: (1.0 - progress) ** 0.9,
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
    "constant": lambda progress: 1.0,
}


def warmup_within(warmup_steps: int | None, total_steps: int) -> int:
    """Steps of the warm-up of a run; where None says nothing, 50, or a tenth of a run of fewer than 500 steps."""
    return min(50, total_steps // 10) if warmup_steps is None else warmup_steps


def rate_factor(schedule: str, step: int, total_steps: int, warmup_steps: int) -> float:
    """
    Args:
        schedule: ``poly``, ``cosine`` or ``constant``.
        step: optimizer steps already taken, from 0.
        total_steps: steps of the whole run.
        warmup_steps: steps over which the rate rises linearly to its full value.

    Returns:
        What every base rate is multiplied by at this step. Warm-up multiplies the schedule, which runs over all steps.
    """
    warmup = min(1.0, (step + 1) / (warmup_steps + 1))
    return warmup * SHAPES[schedule](min(1.0, step / total_steps))


def make_optimizer(network: DepthModel, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW with a rate for the encoder and one for decoder and head; biases, norms and embeddings do not decay."""
    optim = recipe.optim
    rates = {"lr": optim.lr, "lr_decoder": optim.lr_decoder}
    members: dict[tuple[str, float], list[torch.nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            rate = "lr" if name.startswith("encoder.") else "lr_decoder"
            decays = parameter.ndim > 1 and not name.endswith(("pos_embed", "cls_token"))
            members.setdefault((rate, optim.weight_decay if decays else 0.0), []).append(parameter)
    groups = [
        {"params": parameters, "lr": rates[rate], "base_lr": rates[rate], "rate": rate, "weight_decay": decay}
        for (rate, decay), parameters in members.items()
    ]
    device = next(network.parameters()).device
    return torch.optim.AdamW(groups, betas=optim.betas, fused=has_fused_adamw(device))
