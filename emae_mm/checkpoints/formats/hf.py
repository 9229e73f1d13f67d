"""Hugging Face transformers: ``ViTModel``, ``ViTForImageClassification``, ``ViTMAE*`` and ``Dinov2*`` folders."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from emae_mm.checkpoints.formats.base import (
    LAYER_SCALE,
    EncoderTensors,
    Format,
    Rule,
    depth_of,
    fill_absent_biases,
    rename,
    split_off,
    translate,
)
from emae_mm.checkpoints.reading import Checkpoint
from emae_mm.checkpoints.writing import write_safetensors
from emae_mm.errors import CheckpointError
from emae_mm.fileio import write_text

FIRST = "embeddings.patch_embeddings.projection.weight"
PREFIXES = ("", "vit.", "dinov2.", "dinov2_with_registers.")
MODEL_TYPES = ("vit", "vit_mae", "dinov2", "dinov2_with_registers")
LAYER_NORM_EPS = 1e-6

TO_TIMM: tuple[Rule, ...] = (
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.(cls_token|mask_token|register_tokens)$", r"\1"),
    (r"^layernorm\.", "norm."),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
)
FROM_TIMM: tuple[Rule, ...] = (
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^cls_token$", "embeddings.cls_token"),
    (r"^norm\.", "layernorm."),
    (r"^blocks\.", "encoder.layer."),
    (r"\.attn\.(query|key|value)\.", r".attention.attention.\1."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.ls([12])\.gamma$", r".layer_scale\1.lambda1"),
)
VIT_ONLY: tuple[Rule, ...] = (
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
)
"""Names of ViT and ViTMAE where DINOv2 has timm's."""


class HuggingFaceFormat(Format):
    """A folder of ``config.json`` and ``model.safetensors`` (or a sharded index, or ``pytorch_model.bin``).

    Encoders with LayerScale are written as ``Dinov2Model``, those of MAE methods as ``ViTMAEModel``, others as
    ``ViTModel`` without a pooler.
    """

    name = "hf"
    is_target = True
    holds = (LAYER_SCALE,)

    def detect(self, checkpoint: Checkpoint) -> bool:
        return self._prefix(checkpoint.tensors) is not None

    @staticmethod
    def _prefix(names: Iterable[str]) -> str | None:
        return next((prefix for prefix in PREFIXES if f"{prefix}{FIRST}" in names), None)

    def to_encoder(self, checkpoint: Checkpoint) -> EncoderTensors:
        _check_config(checkpoint)
        found = split_off(checkpoint.tensors, self._prefix(checkpoint.tensors), TO_TIMM)
        _join_qkv(found.tensors)
        fill_absent_biases(found.tensors)
        found.num_heads = checkpoint.facts.get("num_attention_heads")
        return found

    def write(self, encoder: EncoderTensors, meta: dict, out: Path) -> None:
        if out.suffix:
            raise CheckpointError(f"{out} looks like a file; transformers reads folders", "give a name without suffix")
        kind = _model_type(encoder, meta)
        rules = FROM_TIMM if kind == "dinov2" else FROM_TIMM + VIT_ONLY
        tensors = rename(_split_qkv(encoder.tensors), lambda name: translate(name, rules))
        config = json.dumps(_config(encoder, kind), indent=2) + "\n"
        out.mkdir(parents=True, exist_ok=True)
        write_safetensors(tensors, out / "model.safetensors")
        write_text(out / "config.json", config)


def _check_config(checkpoint: Checkpoint) -> None:
    """Refuse what the tensors' names do not show: another activation, a model of another kind."""
    kind, activation = checkpoint.facts.get("model_type"), checkpoint.facts.get("hidden_act", "gelu")
    if kind is not None and kind not in MODEL_TYPES:
        raise CheckpointError(
            f"checkpoint {checkpoint.source} is a {kind!r}, which is no plain ViT under these names",
            f"give a folder whose config.json says model_type {', '.join(MODEL_TYPES)}",
        )
    if activation != "gelu":
        raise CheckpointError(
            f"checkpoint {checkpoint.source} has the activation {activation!r}; this project's encoder has GELU",
            "give a checkpoint with hidden_act 'gelu'",
        )


def _join_qkv(tensors: dict[str, Tensor]) -> None:
    """One matrix, and one bias where there are biases, for queries, keys and values, in place."""
    for name in [name for name in tensors if ".attn.query." in name]:
        parts = [tensors.pop(name.replace("query", part), None) for part in ("query", "key", "value")]
        if any(part is None for part in parts):
            raise CheckpointError(f"{name} has no key or value beside it", "the file may be incomplete: copy it again")
        tensors[name.replace("query", "qkv")] = torch.cat(parts)


def _split_qkv(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    split = {}
    for name, tensor in tensors.items():
        if ".attn.qkv." in name:
            for part, piece in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                split[name.replace("qkv", part)] = piece
        else:
            split[name] = tensor
    return split


def _model_type(encoder: EncoderTensors, meta: dict) -> str:
    if any(re.fullmatch(LAYER_SCALE, name) for name in encoder.tensors):
        return "dinov2"
    return "vit_mae" if "MAE" in str(meta.get("method", "")) else "vit"


def _config(encoder: EncoderTensors, kind: str) -> dict:
    if encoder.num_heads is None:
        raise CheckpointError("config.json needs the number of attention heads, which this checkpoint does not say",
                              "give --num-heads N")  # fmt: skip
    tensors = encoder.tensors
    for name in ("patch_embed.proj.weight", "pos_embed", "blocks.0.mlp.fc1.weight"):
        if name not in tensors:
            raise CheckpointError(f"config.json needs the shape of {name}, which is missing", "choose another format")
    width, channels, patch, _ = tensors["patch_embed.proj.weight"].shape
    hidden = len(tensors["blocks.0.mlp.fc1.weight"])
    side = round((tensors["pos_embed"].shape[1] - 1) ** 0.5)
    if side * side != tensors["pos_embed"].shape[1] - 1:
        raise CheckpointError("its position embeddings are of no square image", "transformers needs a square one")
    config = {
        "architectures": [{"vit": "ViTModel", "vit_mae": "ViTMAEModel", "dinov2": "Dinov2Model"}[kind]],
        "model_type": kind,
        "hidden_size": width,
        "num_hidden_layers": depth_of(tensors),
        "num_attention_heads": encoder.num_heads,
        "image_size": side * patch,
        "patch_size": patch,
        "num_channels": channels,
        "hidden_act": "gelu",
        "layer_norm_eps": LAYER_NORM_EPS,
        "qkv_bias": True,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "torch_dtype": str(tensors["patch_embed.proj.weight"].dtype).removeprefix("torch."),
    }
    if kind == "dinov2":
        return config | {"mlp_ratio": hidden / width, "use_mask_token": False, "use_swiglu_ffn": False}
    return config | {"intermediate_size": hidden}
