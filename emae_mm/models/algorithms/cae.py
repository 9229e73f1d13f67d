"""CAE through mmpretrain's implementation, corrected where that departs from the release (lxtGH/CAE).

Context Autoencoder (arXiv:2202.03026): the encoder sees visible patches only; a regressor predicts the latents a
teacher gives for the hidden patches, and a decoder the hidden patches' codes of a frozen tokenizer.
"""

import torch
from mmpretrain.models.backbones.beit import BEiTTransformerEncoderLayer
from mmpretrain.models.selfsup.cae import CAE as MMPretrainCAE
from mmpretrain.models.selfsup.cae import CAEPretrainViT, DALLEEncoder
from torch import Tensor, nn

from emae_mm.checkpoints.tokenizer import load_tokenizer, require_tokenizer
from emae_mm.models.vit import ViTEncoder
from emae_mm.registry import MODELS


@MODELS.register_module()
class DALLETokenizer(DALLEEncoder):
    """mmpretrain's DALL-E encoder, frozen; autocast would change codes, so it computes outside of it.

    Args:
        **kwargs: see mmpretrain's ``DALLEEncoder``.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.requires_grad_(False)  # mmpretrain's layers are trainable in spite of their requires_grad argument

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Logits over the codes: (B, 3, 8h, 8w), values as DALL-E's ``map_pixels`` gives them -> (B, V, h, w)."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x)


@MODELS.register_module()
class CAE(MMPretrainCAE):
    """mmpretrain's CAE with a tokenizer that must be chosen, an exportable encoder, and losses of the usual names.

    Args:
        tokenizer: file with the DALL-E encoder's weights, or ``"random"``, see
            :func:`~emae_mm.checkpoints.tokenizer.load_tokenizer`.
        **kwargs: see mmpretrain's ``CAE``; ``target_generator`` is an ``emae_mm.DALLETokenizer`` by default.

    Raises:
        ConfigError: no tokenizer chosen, or no such file; says how to get one.
        CheckpointError: (in :meth:`init_weights`) the tokenizer's file cannot be used.
    """

    def __init__(self, tokenizer: str = "", target_generator: dict | None = None, **kwargs):
        require_tokenizer(tokenizer)
        super().__init__(target_generator={"type": "emae_mm.DALLETokenizer", **(target_generator or {})}, **kwargs)
        self.tokenizer = tokenizer
        self.teacher_follows_steps = False
        self.teacher.requires_grad_(False)
        for module in self.modules():
            # mmpretrain drops the MLP's path twice, inside mmcv's FFN and around it; the release once
            if isinstance(module, BEiTTransformerEncoderLayer):
                module.ffn.dropout_layer = nn.Identity()
        encoder, arch = self.backbone, self.backbone.arch_settings
        encoder.embed_dim, encoder.depth, encoder.num_heads = arch["embed_dims"], arch["num_layers"], arch["num_heads"]
        encoder.patch_size = encoder.patch_embed.projection.kernel_size[0]

    def init_weights(self) -> None:
        """Initialise as the release does, copy the encoder into the teacher, and load the tokenizer."""
        super().init_weights()
        nn.init.xavier_uniform_(self.neck.head.weight)  # as every linear layer; mmpretrain: normal, 0.02
        load_tokenizer(self.target_generator, self.tokenizer)

    def extract_feat(self, inputs: Tensor) -> Tensor:
        """Unmasked encoding: (B, C, H, W) -> (B, 1+N, D)."""
        (tokens,) = self.backbone(inputs, mask=None)
        return tokens

    def loss(self, inputs: list[Tensor], data_samples: list, **kwargs) -> dict[str, Tensor]:
        """Losses of one step.

        Args:
            inputs: the encoder's images (B, 3, H, W) and the tokenizer's (B, 3, 8h, 8w), each normalised its own way.
            data_samples: B samples with ``mask`` (h, w), 1 = hidden; equally many hidden patches in each.

        Returns:
            ``loss_tokens``: cross-entropy of the hidden patches' codes; ``loss_alignment``: weighted mean squared
            error of the regressed latents to the teacher's.
        """
        losses = super().loss(inputs, data_samples, **kwargs)
        return {"loss_tokens": losses["main"], "loss_alignment": losses["align"]}

    def momentum_update(self) -> None:
        """As mmpretrain: update at the end of every forward pass, unless the teacher follows the optimiser's steps."""
        if not self.teacher_follows_steps:
            self.update_teacher()

    @torch.no_grad()
    def update_teacher(self) -> None:
        """Move the teacher to the encoder, all the way with momentum 0; in place, buffers of DDP and FSDP stay."""
        for student, teacher in zip(self.backbone.parameters(), self.teacher.parameters(), strict=True):
            teacher.lerp_(student, 1.0 - self.momentum)

    def encoder_for_export(self) -> ViTEncoder:
        """The encoder as a plain ViT under timm's names, with its LayerScale (``ls1.gamma``, ``ls2.gamma``) if any."""
        source, tensors = self.backbone, timm_tensors(self.backbone)
        exported = ViTEncoder(
            arch=dict(embed_dim=source.embed_dim, depth=source.depth, num_heads=source.num_heads),
            img_size=source.img_size,
            patch_size=source.patch_size,
            mlp_ratio=source.arch_settings["feedforward_channels"] / source.embed_dim,
            init_values=1.0 if "blocks.0.ls1.gamma" in tensors else None,  # 1 is overwritten
        )
        exported.load_state_dict(tensors)
        return exported


RENAMED = {
    "ln1": "norm1",
    "ln2": "norm2",
    "attn.proj": "attn.proj",
    "ffn.layers.0.0": "mlp.fc1",
    "ffn.layers.1": "mlp.fc2",
}
"""A layer's modules with weight and bias: mmpretrain's names and timm's."""


def timm_tensors(encoder: CAEPretrainViT) -> dict[str, Tensor]:
    """An encoder's tensors under timm's names. Its attention has no bias for the keys: timm's is 0 there."""
    own = encoder.state_dict()
    tensors = {
        "cls_token": own["cls_token"],
        "pos_embed": own["pos_embed"],
        "patch_embed.proj.weight": own["patch_embed.projection.weight"],
        "patch_embed.proj.bias": own["patch_embed.projection.bias"],
        "norm.weight": own["ln1.weight"],
        "norm.bias": own["ln1.bias"],
    }
    for index in range(len(encoder.layers)):
        layer, block = f"layers.{index}.", f"blocks.{index}."
        for theirs, timms in RENAMED.items():
            for kind in ("weight", "bias"):
                tensors[f"{block}{timms}.{kind}"] = own[f"{layer}{theirs}.{kind}"]
        query, value = own[f"{layer}attn.q_bias"], own[f"{layer}attn.v_bias"]
        tensors[f"{block}attn.qkv.weight"] = own[f"{layer}attn.qkv.weight"]
        tensors[f"{block}attn.qkv.bias"] = torch.cat([query, torch.zeros_like(value), value])
        for which in (1, 2):
            if f"{layer}gamma_{which}" in own:
                tensors[f"{block}ls{which}.gamma"] = own[f"{layer}gamma_{which}"]
    return tensors
