"""The network, from a normalized image to depth: encoder, decoder, head."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from finetune.models.dpt_decoder import DptDecoder
from finetune.models.encoder import Encoder
from finetune.models.encoder_specs import ENCODERS, ORIGINAL_OFFSET, PATCH, VERSIONS
from finetune.models.heads import make_head
from finetune.models.training_camera import TrainingCamera
from finetune.utils.kinds import Activation, Kind

# The deepest fusion block is called without a second map, so its first unit never runs and never gets a gradient.
# Because it is frozen, DistributedDataParallel needs no find_unused_parameters. Official files have it, so we keep it.
UNUSED_UNIT = "decoder.fuse.3.skip_unit"
# An adapter's file describes its network by three numbers: the max depth in meters, 0 for a relative one, the version
# of Depth Anything, and whether the last activation is an exponential.
MAX_DEPTH, VERSION, EXPONENTIAL = "max_depth_m", "checkpoint_version", "exponential"


class DepthModel(nn.Module):
    """Depth Anything V2: official weights, renamed, give the official output.

    All weights are NaN until ``initialise`` draws them or ``checkpoints.fill.fill`` sets them, so that a tensor that
    was not filled shows in the first prediction.
    """

    def __init__(
        self,
        encoder: str,
        max_depth_m: float | None,
        *,
        version: str = "v2",
        position_offset: float = ORIGINAL_OFFSET,
        camera: TrainingCamera | None = None,
        activation: Activation | None = None,
    ) -> None:
        """
        Args:
            encoder: a key of ``ENCODERS``.
            max_depth_m: the largest depth that the metric head can predict, meters; None gives a relative head.
            version: ``v1`` or ``v2`` of Depth Anything: which blocks the decoder reads.
            position_offset: patches, how the position embedding is sampled: 0.1 as in the original, 0.0 as in
                transformers; see ``models.position_embedding``.
            camera: what it was trained with, if that is known. It changes nothing of ``forward``: whoever asks for
                meters multiplies by ``camera.meters_factor``.
            activation: of the head: ``sigmoid`` or ``exp`` for a metric one, whose ``max_depth_m`` is then no end;
                ``relu`` for inverse depth, ``exp`` for relative depth. None: ``sigmoid`` or ``relu``.

        Raises:
            ValueError: there is no such encoder or version, or no such activation of this head, or ``max_depth_m`` is
                not positive.
        """
        super().__init__()
        if encoder not in ENCODERS:
            raise ValueError(f"encoder is {encoder!r}; expected one of {', '.join(ENCODERS)}")
        if max_depth_m is not None and not max_depth_m > 0:
            raise ValueError(f"max_depth_m is {max_depth_m}; expected a positive number of meters")
        if version not in VERSIONS:
            raise ValueError(f"version is {version!r}; expected one of {', '.join(VERSIONS)}")
        bounded: Activation = "relu" if max_depth_m is None else "sigmoid"
        if activation not in (None, bounded, "exp"):
            raise ValueError(f"activation is {activation!r}; expected {bounded} or exp")
        spec = ENCODERS[encoder]
        self.activation: Activation = activation or bounded
        self.encoder_name = encoder
        self.version = version
        self.max_depth_m = max_depth_m
        self.camera = camera
        # Built without memory: the layers' own initialization takes seconds for vitl and advances the global generator.
        with torch.device("meta"):
            self.encoder = Encoder(spec, version, position_offset)
            self.decoder = DptDecoder(spec)
            self.head = make_head(spec.features, max_depth_m, self.activation)
        self.to_empty(device="cpu")
        with torch.no_grad():
            for tensor in self.state_dict().values():
                tensor.fill_(torch.nan)
        self.get_submodule(UNUSED_UNIT).requires_grad_(False)

    @property
    def kind(self) -> Kind:
        """``relative`` (inverse depth), ``relative_depth``, or ``metric`` (meters)."""
        if self.max_depth_m is not None:
            return "metric"
        return "relative_depth" if self.activation == "exp" else "relative"

    @property
    def end_m(self) -> float | None:
        """The largest depth that it can predict, meters; None where there is no end, as for all but a sigmoid."""
        return self.max_depth_m if self.activation == "sigmoid" else None

    @property
    def position_offset(self) -> float:
        """Patches; how the position embedding is sampled."""
        return self.encoder.position_offset

    def forward(self, image: Tensor) -> Tensor:
        """
        Args:
            image: normalized, (B, 3, H, W), H and W multiples of 14.

        Returns:
            (B, 1, H, W) float32: meters in (0, max_depth_m), without the upper end where ``activation`` is ``exp``,
            those of the canonical camera if ``camera`` is canonical; or inverse depth >= 0, or relative depth > 0.

        Raises:
            ValueError: the image is not (B, 3, H, W), or a side is not a multiple of 14.
        """
        return self.head(self.last_features(image))

    def last_features(self, image: Tensor) -> Tensor:
        """
        Args:
            image: as in ``forward``.

        Returns:
            (B, 32, H, W): what the head's last layer, a 1x1 convolution, reads.
        """
        if image.ndim != 4 or image.shape[1] != 3:
            raise ValueError(f"image is {tuple(image.shape)}; expected (batch, 3, height, width)")
        height, width = image.shape[-2:]
        nearest = [max(1, round(side / PATCH)) * PATCH for side in (height, width)]
        if nearest != [height, width]:
            raise ValueError(
                f"image is {height}x{width}; height and width must be multiples of {PATCH}: "
                f"the nearest are {nearest[0]}x{nearest[1]}"
            )
        return self.head.features(self.decoder(self.encoder(image)), (height, width))

    def meaning(self) -> dict[str, Tensor]:
        """What names and shapes of the weights do not tell, as tensors for an adapter's file."""
        return {
            MAX_DEPTH: torch.tensor([self.max_depth_m or 0.0]),
            VERSION: torch.tensor([float(self.version.removeprefix("v"))]),
            EXPONENTIAL: torch.tensor([float(self.activation == "exp")]),
        }

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *arguments: Any) -> None:
        """
        Called whenever weights are loaded, also by peft, which does not know about meters and would load silently.

        Raises:
            ValueError: the weights belong to a network with another head, max depth, version or activation.
        """
        for name, own in self.meaning().items():
            stated = state_dict.pop(f"{prefix}{name}", None)
            if stated is not None and not torch.equal(stated.cpu().float(), own):
                nothing = " (0: relative)" if name == MAX_DEPTH else ""
                raise ValueError(
                    f"the adapter belongs to a network with {name} {stated.item():g}{nothing}, this one has "
                    f"{own.item():g}: make the network by finetune.adapter_base(folder)"
                )
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def encoder_parameters(self) -> list[nn.Parameter]:
        """The encoder's parameters."""
        return list(self.encoder.parameters())

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Keep only the inputs of the encoder's blocks for backward, and compute the rest again."""
        self.encoder.set_grad_checkpointing(enabled)

    def initialise(self, seed: int) -> None:
        """Draw every weight anew; a pure function of ``seed``, whatever the global generator's state."""
        self.encoder.initialise(torch.Generator().manual_seed(seed))
        self.initialise_decoder(seed)

    def initialise_decoder(self, seed: int) -> None:
        """Draw decoder and head anew."""
        generator = torch.Generator().manual_seed(seed)
        for module in chain(self.decoder.modules(), self.head.modules()):
            _draw(module, generator)


def _draw(module: nn.Module, generator: torch.Generator) -> None:
    """Uniform within 1 / sqrt(fan in), weights and bias: PyTorch's own rule for convolutions, from our generator."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        bound = module.weight[0].numel() ** -0.5
        for parameter in module.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
