"""The sizes of the networks, as plain numbers: reading them imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

PATCH = 14  # pixels, a side
VERSIONS = ("v1", "v2")  # Depth Anything's: they differ in the blocks that the decoder reads, not in names and shapes
ORIGINAL_OFFSET = 0.1  # patches, of the original's position embedding; see ``models.position_embedding``
TRANSFORMERS_OFFSET = 0.0
MAX_SIDE_PX = 300 * PATCH  # the longest side of an input; a larger number is damaged, or would not fit into memory
GRID = 37  # patches a side at 518x518, the size the position embedding is stored for


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """A vision transformer and the decoder that belongs to it.

    Attributes:
        embed_dim: width of a token.
        depth: number of blocks.
        heads: attention heads a block.
        out_indices: 0-based blocks whose tokens the decoder reads, shallow to deep; of V2.
        features: channels of the decoder where the four scales meet.
        out_channels: channels of the four scales before that, fine to coarse.
        swiglu: the blocks have a gated feed-forward part.
    """

    embed_dim: int
    depth: int
    heads: int
    out_indices: tuple[int, int, int, int]
    features: int
    out_channels: tuple[int, int, int, int]
    swiglu: bool = False

    def out_indices_of(self, version: str) -> tuple[int, ...]:
        """The indices of ``v1``, which reads the last four blocks, or ``v2``."""
        return self.out_indices if version == "v2" else tuple(range(self.depth - 4, self.depth))


# All but tiny are Depth Anything V2's: dpt.py and dinov2.py of DepthAnything/Depth-Anything-V2.
ENCODERS = {
    "tiny": EncoderSpec(
        embed_dim=192, depth=8, heads=3, out_indices=(1, 3, 5, 7), features=32, out_channels=(24, 48, 96, 192)
    ),
    "vits": EncoderSpec(
        embed_dim=384, depth=12, heads=6, out_indices=(2, 5, 8, 11), features=64, out_channels=(48, 96, 192, 384)
    ),
    "vitb": EncoderSpec(
        embed_dim=768, depth=12, heads=12, out_indices=(2, 5, 8, 11), features=128, out_channels=(96, 192, 384, 768)
    ),
    "vitl": EncoderSpec(
        embed_dim=1024,
        depth=24,
        heads=16,
        out_indices=(4, 11, 17, 23),
        features=256,
        out_channels=(256, 512, 1024, 1024),
    ),
    "vitg": EncoderSpec(
        embed_dim=1536,
        depth=40,
        heads=24,
        out_indices=(9, 19, 29, 39),
        features=384,
        out_channels=(1536, 1536, 1536, 1536),
        swiglu=True,
    ),
}
