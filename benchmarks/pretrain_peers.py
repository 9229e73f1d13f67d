"""EMAE steps of two public MAE implementations: K passes and the paper's pairwise loss, on given patch orders."""

import itertools
from collections.abc import Callable
from functools import partial

import torch
from mmpretrain.models.selfsup.mae import MAEViT
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from emae_mm.models.vit import ARCHITECTURES

DECODER = dict(dim=512, depth=8, heads=16)
IMG, PATCH = 224, 16


def mask_ratio(parts: int) -> float:
    """(K-1)/K, a little less, because the peers round the number of visible patches down."""
    return 1 - 1 / parts - 1e-6


def rolled_noise(order: Tensor, parts: int, part: int) -> Tensor:
    """Noise (B, N) whose ``argsort`` begins with the visible patches of one part of a patch order (B, N)."""
    visible = order.shape[-1] // parts
    return order.roll(-part * visible, dims=-1).argsort(dim=-1).to(torch.float32)


def paper_losses(predictions: list[Tensor], reconstruction: list[Tensor], masks: list[Tensor]) -> dict[str, Tensor]:
    """Equations 8 to 12 as the paper writes them: the mean over parts, and a loop over pairs of parts."""
    pairs = []
    for i, j in itertools.combinations(range(len(predictions)), 2):
        a, b, shared = predictions[i].float(), predictions[j].float(), masks[i] * masks[j]
        distance = ((a.detach() - b).abs() + (a - b.detach()).abs()).mean(dim=-1)
        pairs.append((distance * shared).sum() / shared.sum())
    return dict(loss_reconstruction=torch.stack(reconstruction).mean(), loss_consistency=torch.stack(pairs).mean())


class _GivenNoise(MAEViT):
    """mmpretrain's encoder, masking by given instead of fresh noise; everything else is its own."""

    def random_masking(self, x, mask_ratio=0.75):
        order = self.noise.argsort(dim=1)
        restore = order.argsort(dim=1)
        visible = int(x.shape[1] * (1 - mask_ratio))
        kept = x.gather(1, order[:, :visible, None].expand(-1, -1, x.shape[2]))
        return kept, (restore >= visible).to(x.dtype), restore


class MMPretrainEMAE(nn.Module):
    """mmpretrain's MAE (encoder, decoder, head), executed K times."""

    def __init__(self, arch: str, parts: int):
        super().__init__()
        spec = ARCHITECTURES[arch]
        width = spec["embed_dim"]
        layers = dict(embed_dims=width, num_layers=spec["depth"], num_heads=spec["num_heads"])
        self.backbone = _GivenNoise(arch=dict(**layers, feedforward_channels=4 * width), mask_ratio=mask_ratio(parts))
        self.neck = MODELS.build(
            dict(
                type="MAEPretrainDecoder", num_patches=(IMG // PATCH) ** 2, embed_dim=width,
                decoder_embed_dim=DECODER["dim"], decoder_depth=DECODER["depth"], decoder_num_heads=DECODER["heads"],
                norm_cfg=dict(type="LN", eps=1e-6),
            )
        )  # fmt: skip
        loss = dict(type="PixelReconstructionLoss", criterion="L2")
        self.head = MODELS.build(dict(type="MAEPretrainHead", norm_pix=True, patch_size=PATCH, loss=loss))
        self.parts = parts

    def losses(self, images: Tensor, orders: Tensor, modules=None, combine=paper_losses) -> dict[str, Tensor]:
        encode, decode, loss = modules or (self.backbone, self.neck, self.head.loss)
        predictions, reconstruction, masks = [], [], []
        for part in range(self.parts):
            self.backbone.noise = rolled_noise(orders[:, 0], self.parts, part)
            latent, mask, ids_restore = encode(images)
            prediction = decode(latent, ids_restore)
            reconstruction.append(loss(prediction, images, mask))
            predictions.append(prediction)
            masks.append(mask)
        return combine(predictions, reconstruction, masks)

    def compiled(self) -> Callable:
        """``losses`` with one pass and the pairwise loss compiled; K passes in one graph take very long to compile."""
        modules = torch.compile(self.backbone), torch.compile(self.neck), torch.compile(self.head.loss)
        return partial(self.losses, modules=modules, combine=torch.compile(paper_losses))

    def take_weights(self, ours: nn.Module) -> None:
        """The same weights as our model; every tensor of this one must be found there."""
        own = ours.state_dict()
        state = {}
        for name in self.state_dict():
            key = name.replace("neck.", "decoder.").replace("decoder.decoder_norm1", "decoder.decoder_norm")
            key = key.replace("decoder.ln1", "decoder.decoder_norm").replace("backbone.ln1", "backbone.norm")
            key = key.replace("backbone.layers.", "backbone.blocks.").replace(
                "patch_embed.projection", "patch_embed.proj"
            )
            key = key.replace("ffn.layers.0.0", "mlp.fc1").replace("ffn.layers.1", "mlp.fc2")
            key = key.replace(".ln1", ".norm1").replace(".ln2", ".norm2")
            state[name] = own[key]
        self.load_state_dict(state)


class TransformersEMAE(nn.Module):
    """transformers' ViTMAE (fused attention), executed K times."""

    def __init__(self, arch: str, parts: int):
        super().__init__()
        spec = ARCHITECTURES[arch]
        config = ViTMAEConfig(
            hidden_size=spec["embed_dim"], num_hidden_layers=spec["depth"], num_attention_heads=spec["num_heads"],
            intermediate_size=4 * spec["embed_dim"], image_size=IMG, patch_size=PATCH, mask_ratio=mask_ratio(parts),
            decoder_hidden_size=DECODER["dim"], decoder_num_hidden_layers=DECODER["depth"],
            decoder_num_attention_heads=DECODER["heads"], decoder_intermediate_size=4 * DECODER["dim"],
            norm_pix_loss=True, layer_norm_eps=1e-6, attn_implementation="sdpa",
        )  # fmt: skip
        self.model = ViTMAEForPreTraining(config)
        self.parts = parts

    def losses(self, images: Tensor, orders: Tensor) -> dict[str, Tensor]:
        outputs = [self.model(images, noise=rolled_noise(orders[:, 0], self.parts, part)) for part in range(self.parts)]
        return paper_losses([o.logits for o in outputs], [o.loss for o in outputs], [o.mask for o in outputs])

    def take_weights(self, ours: nn.Module) -> None:
        """The same weights as our model; every tensor of this one must be found there."""
        own = ours.state_dict()
        state = {}
        for name in self.model.state_dict():
            key = name.replace("decoder.decoder_layers.", "decoder.decoder_blocks.").replace("vit.", "backbone.")
            key = key.replace("encoder.layer.", "blocks.").replace("embeddings.cls_token", "cls_token")
            key = key.replace("embeddings.position_embeddings", "pos_embed").replace("layernorm_before", "norm1")
            key = key.replace("embeddings.patch_embeddings.projection", "patch_embed.proj")
            key = key.replace("layernorm_after", "norm2").replace("backbone.layernorm.", "backbone.norm.")
            key = key.replace("attention.output.dense", "attn.proj").replace("intermediate.dense", "mlp.fc1")
            key = key.replace("output.dense", "mlp.fc2")
            for index, letter in enumerate(("query", "key", "value")):
                inner = f"attention.attention.{letter}"
                if inner in key:
                    state[name] = own[key.replace(inner, "attn.qkv")].chunk(3)[index]
                    break
            else:
                state[name] = own[key]
        self.model.load_state_dict(state)


PEERS = {"mmpretrain": MMPretrainEMAE, "transformers": TransformersEMAE}
