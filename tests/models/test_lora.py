"""Adapters in the encoder: where they stand, what they change, and what peft makes of the folder."""

import re
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel

from finetune.models.checkpoints.save import save_adapter
from finetune.models.depth_model import DepthModel
from finetune.models.encoder import Encoder
from finetune.models.encoder_specs import ENCODERS
from finetune.models.lora import adapted_layers, adapter_tensors, add_adapters, lora_config, merge_adapters
from tests.drawn_weights import drawn_model

ALL = ("qkv", "proj", "fc1", "fc2")


def config(blocks: int = 12, **options: object) -> LoraConfig:
    asked: dict[str, object] = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "targets": ALL, "last_blocks": None}
    return lora_config(blocks, **(asked | options))  # type: ignore[arg-type]


def adapted(seed: int = 0, **options: object) -> DepthModel:
    network = drawn_model("tiny", 10.0)
    add_adapters(network, config(len(network.encoder.blocks), **options), seed)
    return network


def trained(network: DepthModel) -> DepthModel:
    """As after steps: adapters that no longer add 0."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if ".lora_" in name:
                parameter.normal_(0.0, 0.05, generator=generator)
    return network


def image() -> torch.Tensor:
    return torch.randn(1, 3, 28, 42, generator=torch.Generator().manual_seed(1))


def test_four_layers_of_every_block_and_never_the_patch_embedding() -> None:
    network = adapted()
    names = {name for name, _ in adapted_layers(network)}
    blocks = len(network.encoder.blocks)
    assert len(names) == 4 * blocks
    assert {name.split(".", 3)[3] for name in names} == {"attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"}
    assert not any("patch_embed" in name or not name.startswith("encoder.blocks.") for name in names)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_pattern_names_linear_layers_of_every_encoder(encoder: str) -> None:
    with torch.device("meta"):
        parts = Encoder(ENCODERS[encoder]).named_modules()
        names = [f"encoder.{name}" for name, part in parts if isinstance(part, torch.nn.Linear)]
    pattern = config(ENCODERS[encoder].depth).target_modules
    assert sum(bool(re.fullmatch(str(pattern), name)) for name in names) == 4 * ENCODERS[encoder].depth


def test_targets_and_last_blocks_choose() -> None:
    network = adapted(targets=("qkv", "fc2"), last_blocks=2)
    blocks = len(network.encoder.blocks)
    chosen = {(int(name.split(".")[2]), name.rsplit(".", 1)[1]) for name, _ in adapted_layers(network)}
    assert chosen == {(block, layer) for block in (blocks - 2, blocks - 1) for layer in ("qkv", "fc2")}


def test_at_first_they_change_nothing_and_are_drawn_from_the_seed() -> None:
    before = torch.random.get_rng_state()
    one, same, other = adapted(), adapted(), adapted(seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    with torch.no_grad():
        assert torch.equal(one(image()), drawn_model("tiny", 10.0)(image()))
    drawn = [next(p for n, p in network.named_parameters() if "lora_A" in n) for network in (one, same, other)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_of_the_encoder_they_alone_are_trained() -> None:
    network = adapted()
    for name, parameter in network.named_parameters():
        in_encoder = name.startswith("encoder.")
        unused = name.startswith("decoder.fuse.3.skip_unit")
        assert parameter.requires_grad == (".lora_" in name if in_encoder else not unused), name


def test_merged_it_gives_the_same_prediction_under_plain_names() -> None:
    network = trained(adapted())
    plain = merge_adapters(network)
    assert plain.state_dict().keys() == drawn_model("tiny", 10.0).state_dict().keys()
    with torch.no_grad():
        unmerged, prediction, base = network.eval()(image()), plain(image()), drawn_model("tiny", 10.0)(image())
    spread = unmerged.max() - unmerged.min()
    assert (prediction - unmerged).abs().max() <= 1e-5 * spread
    assert (base - unmerged).abs().max() > 1e-2 * spread


def test_peft_loads_the_folder_over_the_same_base(tmp_path: Path) -> None:
    network = trained(adapted())
    with torch.no_grad():
        network.state_dict()["head.last.bias"].add_(0.5)
        network.state_dict()["decoder.project.0.bias"].add_(0.1)
    folder = tmp_path / "adapter"
    content = config(len(network.encoder.blocks)).to_dict() | {"base_model_name_or_path": "base.pth"}
    save_adapter(folder, adapter_tensors(network), content, network, {})
    loaded = PeftModel.from_pretrained(drawn_model("tiny", 10.0), str(folder)).eval()
    with torch.no_grad():
        ours, theirs = network.eval()(image()), loaded(image())
    assert (ours - theirs).abs().max() <= 1e-5 * (ours.max() - ours.min())
