"""Independent models at a small size with random weights, saved as their own libraries save them.

Each builder returns a :class:`Foreign`; nothing here uses this project's code.
"""

import argparse
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

WIDTH, DEPTH, HEADS, PATCH, SIZE = 48, 3, 3, 8, 32
GRID = SIZE // PATCH
ARCH = dict(embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS)


@dataclass
class Foreign:
    """A saved model.

    Attributes:
        source: the file or folder.
        model: the independent model.
        tokens: images to all tokens after the final norm, (B, 1+N, D).
        options: of our encoder beyond the standard ones.
    """

    source: Path
    model: nn.Module
    tokens: Callable[[Tensor], Tensor]
    options: dict


@torch.no_grad()
def randomise(model: nn.Module) -> nn.Module:
    """Leave no parameter at a value (0 or 1) that could hide a mistake."""
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    model.eval()
    return model


def timm_model(**options) -> nn.Module:
    standard = dict(img_size=SIZE, patch_size=PATCH, num_classes=0, **ARCH)
    return randomise(timm.models.VisionTransformer(**{**standard, **options}))


def timm_safetensors(folder: Path) -> Foreign:
    from safetensors.torch import save_file

    model = timm_model()
    save_file(model.state_dict(), folder / "model.safetensors")
    return Foreign(folder / "model.safetensors", model, model.forward_features, {})


def timm_with_head(folder: Path) -> Foreign:
    model = timm_model(num_classes=7)
    torch.save({f"module.{name}": tensor for name, tensor in model.state_dict().items()}, folder / "timm.pth")
    return Foreign(folder / "timm.pth", model, model.forward_features, {})


def timm_without_class_position(folder: Path) -> Foreign:
    model = timm_model(no_embed_class=True, qkv_bias=False)
    torch.save(model.state_dict(), folder / "timm.pth")
    return Foreign(folder / "timm.pth", model, model.forward_features, {})


def timm_layer_scale(folder: Path) -> Foreign:
    model = timm_model(init_values=0.1)
    extra = {"mask_token": torch.zeros(1, WIDTH)}  # as DINOv2's own release
    torch.save(model.state_dict() | extra, folder / "dinov2.pth")
    return Foreign(folder / "dinov2.pth", model, model.forward_features, {"init_values": 1.0})


def mae_pretraining(folder: Path) -> Foreign:
    """The official pre-training file: timm's names, a decoder, the optimiser and the parsed command line."""
    model = timm_model()
    decoder = nn.ModuleDict(
        {
            "decoder_embed": nn.Linear(WIDTH, 32),
            "decoder_blocks": timm.models.VisionTransformer(embed_dim=32, depth=1, num_heads=2, img_size=32).blocks,
            "decoder_norm": nn.LayerNorm(32),
            "decoder_pred": nn.Linear(32, PATCH * PATCH * 3),
        }
    ).state_dict()
    decoder |= {"mask_token": torch.zeros(1, 1, 32), "decoder_pos_embed": torch.zeros(1, 1 + GRID**2, 32)}
    content = {"model": model.state_dict() | decoder, "epoch": 799, "args": argparse.Namespace(mask_ratio=0.75)}
    content["optimizer"] = torch.optim.AdamW(model.parameters()).state_dict()
    torch.save(content, folder / "checkpoint-799.pth")
    return Foreign(folder / "checkpoint-799.pth", model, model.forward_features, {})


def _hf_config(kind: type, **options):
    size = dict(hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS, image_size=SIZE)
    # transformers' default for ViT is 1e-12; on checkpoints trained with 1e-6, as all of the ViT paper's, that is a
    # difference of 1e-6 over a token's variance, which small random weights would show
    size |= dict(patch_size=PATCH, layer_norm_eps=1e-6) | (
        {} if "Dinov2" in kind.__name__ else dict(intermediate_size=4 * WIDTH)
    )
    return kind(**size, **options)


def hf_vit(folder: Path) -> Foreign:
    from transformers import ViTConfig, ViTModel

    model = randomise(ViTModel(_hf_config(ViTConfig)))
    model.save_pretrained(folder / "vit")
    return Foreign(folder / "vit", model, lambda images: model(images).last_hidden_state, {})


def hf_classifier_bin(folder: Path) -> Foreign:
    from transformers import ViTConfig, ViTForImageClassification

    model = randomise(ViTForImageClassification(_hf_config(ViTConfig, qkv_bias=False)))
    model.save_pretrained(folder / "classifier")
    (folder / "classifier" / "model.safetensors").unlink()  # as before safetensors
    torch.save(model.state_dict(), folder / "classifier" / "pytorch_model.bin")
    return Foreign(folder / "classifier", model, lambda images: model.vit(images).last_hidden_state, {})


def hf_mae(folder: Path) -> Foreign:
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    small = dict(decoder_hidden_size=32, decoder_num_hidden_layers=1, decoder_num_attention_heads=2)
    config = _hf_config(ViTMAEConfig, mask_ratio=0.0, decoder_intermediate_size=64, **small)
    model = randomise(ViTMAEForPreTraining(config))
    model.save_pretrained(folder / "mae")
    return Foreign(folder / "mae", model, lambda images: mae_tokens(model.vit, images), {})


def mae_tokens(model: nn.Module, images: Tensor) -> Tensor:
    """A ViTMAEModel's tokens, none hidden and in their order: it shuffles them by the noise."""
    noise = torch.arange(GRID**2).float().expand(len(images), -1)
    return model(images, noise=noise).last_hidden_state


def hf_dinov2_sharded(folder: Path) -> Foreign:
    from transformers import Dinov2Config, Dinov2Model

    model = randomise(Dinov2Model(_hf_config(Dinov2Config)))
    model.save_pretrained(folder / "dinov2", max_shard_size="100KB")
    assert (folder / "dinov2" / "model.safetensors.index.json").is_file()
    return Foreign(folder / "dinov2", model, lambda images: model(images).last_hidden_state, {"init_values": 1.0})


def mmpretrain_arch() -> dict:
    return dict(embed_dims=WIDTH, num_layers=DEPTH, num_heads=HEADS, feedforward_channels=4 * WIDTH)


def mmpretrain_vit(folder: Path) -> Foreign:
    from mmpretrain.models import VisionTransformer

    model = randomise(VisionTransformer(mmpretrain_arch(), SIZE, PATCH, out_type="raw", layer_scale_init_value=0.1))
    state = {f"backbone.{name}": tensor for name, tensor in model.state_dict().items()}
    state |= {"head.layers.head.weight": torch.zeros(7, WIDTH), "head.layers.head.bias": torch.zeros(7)}
    torch.save({"state_dict": state, "meta": {"epoch": 3}}, folder / "epoch_3.pth")
    return Foreign(folder / "epoch_3.pth", model, lambda images: model(images)[0], {"init_values": 1.0})


def mmpretrain_mae(folder: Path) -> Foreign:
    """MAE as mmpretrain trains it, with the histories that mmengine puts into a checkpoint."""
    from mmengine.logging import HistoryBuffer
    from mmpretrain.models import MAEViT

    model = randomise(MAEViT(mmpretrain_arch(), SIZE, PATCH))
    state = {f"backbone.{name}": tensor for name, tensor in model.state_dict().items()}
    state |= {"neck.mask_token": torch.zeros(1, 1, 32), "neck.decoder_pred.weight": torch.zeros(192, 32)}
    hub = {"log_scalars": {"train/loss": HistoryBuffer([0.5, 0.4], [1, 1])}}
    torch.save({"state_dict": state, "message_hub": hub, "meta": {"epoch": 3}}, folder / "epoch_3.pth")
    return Foreign(folder / "epoch_3.pth", model, lambda images: raw_tokens(model, images), {})


def raw_tokens(model: nn.Module, images: Tensor) -> Tensor:
    """All tokens of mmpretrain's pre-training ViTs, nothing hidden."""
    model.out_type = "raw"
    return model(images, mask=None)[0]


def mmpretrain_cae(folder: Path) -> Foreign:
    """CAE's encoder in mmpretrain: BEiT's biases and LayerScale, absolute positions."""
    from mmpretrain.models.selfsup.cae import CAEPretrainViT

    model = randomise(
        CAEPretrainViT(mmpretrain_arch(), SIZE, PATCH, layer_scale_init_value=0.1, bias="qv_bias")
    )  # fmt: skip
    state = {f"backbone.{name}": tensor for name, tensor in model.state_dict().items()}
    state |= {f"teacher.{name}": torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": state}, folder / "cae.pth")
    nothing = torch.zeros(1, GRID**2, dtype=torch.bool)
    tokens = lambda images: model(images, nothing.expand(len(images), -1))  # noqa: E731
    return Foreign(folder / "cae.pth", model, tokens, {"init_values": 1.0})


def beit_model(**options) -> nn.Module:
    return randomise(
        timm.models.beit.Beit(
            img_size=SIZE, patch_size=PATCH, global_pool="token", num_classes=0, init_values=0.1, **ARCH, **options
        )
    )  # fmt: skip


def cae_release(folder: Path) -> Foreign:
    """CAE's own names: BEiT's below ``encoder.``, and the parts of pre-training beside it."""
    model = beit_model(use_abs_pos_emb=True)
    state = {f"encoder.{name}": tensor for name, tensor in model.state_dict().items()}
    state |= {"regressor_and_decoder.norm.weight": torch.zeros(WIDTH), "teacher.cls_token": torch.zeros(1, 1, WIDTH)}
    torch.save({"model": state}, folder / "cae.pth")
    return Foreign(folder / "cae.pth", model, model.forward_features, {"init_values": 1.0})


def exported(folder: Path) -> Foreign:
    model = timm_model()
    torch.save({"model": model.state_dict(), "meta": {"method": "EMAE"}}, folder / "encoder.pth")
    return Foreign(folder / "encoder.pth", model, model.forward_features, {})


def training(folder: Path) -> Foreign:
    model = timm_model()
    state = {f"backbone.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": state | {"decoder.mask_token": torch.zeros(1, 1, 32)}}, folder / "epoch_3.pth")
    return Foreign(folder / "epoch_3.pth", model, model.forward_features, {})


PLAIN = {
    "timm": [timm_safetensors, timm_with_head, timm_without_class_position, timm_layer_scale],
    "mae": [mae_pretraining],
    "hf": [hf_vit, hf_classifier_bin, hf_mae, hf_dinov2_sharded],
    "mmpretrain": [mmpretrain_vit, mmpretrain_mae, mmpretrain_cae],
    "beit": [cae_release],
    "emae": [exported, training],
}
"""Builders of files that a plain ViT can hold, by the name of their format."""

WINDOW = 2


def vitdet_model() -> nn.Module:
    """A ViT with windows and decomposed relative positions, independent of detectron2 and mmdet: timm's SAM."""
    return randomise(
        timm.models.vision_transformer_sam.VisionTransformerSAM(
            img_size=SIZE, patch_size=PATCH, num_classes=0, neck_chans=0, window_size=WINDOW,
            global_attn_indexes=(DEPTH - 1,), use_rel_pos=True, norm_layer=partial(nn.LayerNorm, eps=1e-6), **ARCH,
        )
    )  # fmt: skip


def vitdet_map(model: nn.Module, images: Tensor) -> Tensor:
    """The last block's output as a map (B, D, H, W)."""
    return model.blocks(model.patch_embed(images) + model.pos_embed).permute(0, 3, 1, 2)


def vitdet_state(model: nn.Module, prefix: str) -> dict[str, Tensor]:
    """Under the names of detectron2's and mmdet's ViTDet; their positions have a row for a class token."""
    state = {f"{prefix}{name}": tensor for name, tensor in model.state_dict().items() if not name.startswith("neck")}
    positions = torch.cat([torch.randn(1, 1, WIDTH), model.pos_embed.detach().flatten(1, 2)], dim=1)
    return state | {f"{prefix}pos_embed": positions}


def detectron2_vitdet(folder: Path) -> tuple[Path, nn.Module]:
    model = vitdet_model()
    state = vitdet_state(model, "backbone.net.")
    state |= {"backbone.simfp_2.0.weight": torch.zeros(3), "roi_heads.box_head.fc1.weight": torch.zeros(3)}
    content = {"model": {name: tensor.numpy() for name, tensor in state.items()}, "__author__": "someone"}
    (folder / "model_final.pkl").write_bytes(pickle.dumps(content, protocol=2))
    return folder / "model_final.pkl", model


def mmdet_vitdet(folder: Path) -> tuple[Path, nn.Module]:
    model = vitdet_model()
    state = vitdet_state(model, "backbone.") | {"neck.lateral_convs.0.conv.weight": torch.zeros(3)}
    torch.save({"state_dict": state, "meta": {"epoch": 100}}, folder / "epoch_100.pth")
    return folder / "epoch_100.pth", model
