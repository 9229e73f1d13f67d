"""Every checkpoint format against an independent model: same features, and the same tensors on the way back."""

import re

import foreign_models as foreign
import pytest
import torch

from emae_mm.checkpoints import describe_encoder, load_encoder, read_checkpoint
from emae_mm.checkpoints.formats import all_formats
from emae_mm.errors import CheckpointError
from emae_mm.models import DenseViT, ViTEncoder
from emae_mm.models.vit import ViTForClassification

ATOL = 1e-5  # float32, a few blocks, attention by another kernel
CASES = [pytest.param(kind, build, id=build.__name__) for kind, builds in foreign.PLAIN.items() for build in builds]


def images(size: int = foreign.SIZE) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def encoder(kind: type = ViTEncoder, **options) -> ViTEncoder:
    standard = dict(arch=foreign.ARCH, img_size=foreign.SIZE, patch_size=foreign.PATCH)
    return kind(**{**standard, **options}).eval()


@pytest.mark.parametrize(("kind", "build"), CASES)
def test_features_are_those_of_the_independent_model(tmp_path, kind, build):
    model = build(tmp_path)
    ours = encoder(**model.options)
    report = load_encoder(ours, model.source)
    assert report.format == kind
    assert not report.fresh and not report.unused and not report.resampled
    assert len(report.used) == len(ours.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(ours(images()), model.tokens(images()), atol=ATOL, rtol=0)


@pytest.mark.parametrize(("kind", "build"), CASES)
def test_exactly_one_format_claims_a_checkpoint_and_describes_it(tmp_path, kind, build):
    model = build(tmp_path)
    checkpoint = read_checkpoint(model.source)
    assert [name for name, known in all_formats().items() if known.detect(checkpoint)] == [kind]
    info = describe_encoder(model.source)
    assert (info.format, info.embed_dim, info.depth, info.patch_size) == (kind, 48, 3, 8)
    assert info.grid == (4, 4) and info.arch is None
    assert info.has_layer_scale == ("init_values" in model.options)
    assert info.num_heads == (3 if kind == "hf" else None)  # only a folder's config.json says it
    assert info.meta == ({"method": "EMAE"} if build is foreign.exported else {})


@pytest.mark.parametrize("build", [foreign.detectron2_vitdet, foreign.mmdet_vitdet])
def test_vitdet_backbones(tmp_path, build):
    source, model = build(tmp_path)
    ours = encoder(
        DenseViT, out_indices=(2,), window_size=foreign.WINDOW, global_blocks=(2,), rel_pos_bias="decomposed",
        use_cls_token=False,
    )  # fmt: skip
    report = load_encoder(ours, source)
    assert report.format == build.__name__.partition("_")[0]
    assert not report.fresh and not report.unused
    assert sum("rel_pos" in name for name in report.used) == 6
    with torch.inference_mode():
        torch.testing.assert_close(ours(images())[0], foreign.vitdet_map(model, images()), atol=ATOL, rtol=0)
    checkpoint = read_checkpoint(source)
    assert [name for name, kind in all_formats().items() if kind.detect(checkpoint)] == [report.format]


def test_timms_sam_is_read_too(tmp_path):
    model = foreign.vitdet_model()
    torch.save(model.state_dict(), tmp_path / "sam.pth")
    ours = encoder(
        DenseViT, out_indices=(2,), window_size=foreign.WINDOW, global_blocks=(2,), rel_pos_bias="decomposed",
        use_cls_token=False,
    )  # fmt: skip
    assert load_encoder(ours, tmp_path / "sam.pth").format == "timm"
    with torch.inference_mode():
        torch.testing.assert_close(ours(images())[0], foreign.vitdet_map(model, images()), atol=ATOL, rtol=0)


def test_relative_positions_of_a_detector_need_a_place(tmp_path):
    source, _ = foreign.detectron2_vitdet(tmp_path)
    ours = encoder(DenseViT, out_indices=(2,), use_cls_token=False)
    with pytest.raises(CheckpointError, match=r"rel_pos_h: not in the model \(relative positions take part"):
        load_encoder(ours, source)
    report = load_encoder(ours, source, allow_missing=["blocks.*.attn.rel_pos_?"])
    assert len(report.unused) == 6 and not report.fresh
    assert "36 of 42" not in str(report) and f"{len(report.used)} of {len(report.used) + 6} encoder tensors" in str(
        report
    )
    with pytest.raises(CheckpointError, match="cls_token: missing from the checkpoint"):
        load_encoder(encoder(), source)


def test_decomposed_positions_are_resampled_linearly(tmp_path):
    source, model = foreign.mmdet_vitdet(tmp_path)
    ours = encoder(
        DenseViT, img_size=48, out_indices=(2,), window_size=3, global_blocks=(2,), rel_pos_bias="decomposed",
        use_cls_token=False,
    )  # fmt: skip
    report = load_encoder(ours, source)
    assert {name.split(".")[-1] for name in report.resampled} == {"pos_embed", "rel_pos_h", "rel_pos_w"}
    theirs, got = model.blocks[0].attn.rel_pos_h, ours.blocks[0].attn.rel_pos_h  # 3 offsets and 5
    # half-pixel centres: the new offsets lie at -0.2, 0.4, 1.0, 1.6, 2.2 of the old ones, clamped to 0..2
    for index, place in enumerate((0.0, 0.4, 1.0, 1.6, 2.0)):
        low = min(int(place), 1)
        expected = theirs[low] * (1 - (place - low)) + theirs[low + 1] * (place - low)
        torch.testing.assert_close(got[index], expected, atol=1e-6, rtol=0)


def test_a_fine_tuned_release_keeps_its_norm_of_the_mean(tmp_path):
    """MAE's fine-tuned models: timm's names with ``fc_norm`` and ``head``, no ``norm``."""
    model = foreign.timm_model(num_classes=7, global_pool="avg")
    torch.save({"model": model.state_dict()}, tmp_path / "finetuned.pth")
    pooled = encoder(ViTForClassification, pool="avg")
    report = load_encoder(pooled, tmp_path / "finetuned.pth")
    assert not report.fresh and not report.unused and set(report.beside) == {"head.weight", "head.bias"}
    with torch.inference_mode():
        expected = model.forward_head(model.forward_features(images()), pre_logits=True)
        torch.testing.assert_close(pooled(images())[0], expected, atol=ATOL, rtol=0)
    with pytest.raises(CheckpointError, match=r"norm\.weight: missing") as caught:
        load_encoder(encoder(), tmp_path / "finetuned.pth")
    assert "--allow-missing 'norm.*'" in caught.value.fix
    report = load_encoder(encoder(), tmp_path / "finetuned.pth", allow_missing=["norm.*"])
    assert report.fresh == ["norm.weight", "norm.bias"]


def test_a_pretrained_encoder_starts_fine_tuning_without_its_final_norm(tmp_path):
    model = foreign.exported(tmp_path)
    report = load_encoder(encoder(ViTForClassification, pool="avg"), model.source)
    assert report.unused == ["norm.weight", "norm.bias"]
    assert report.fresh == ["fc_norm.weight", "fc_norm.bias"]


# --- BEiT's relative positions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, True])
def test_beits_tables_fit_a_backbone_with_tables_and_no_other(tmp_path, shared):
    model = foreign.beit_model(use_rel_pos_bias=not shared, use_shared_rel_pos_bias=shared)
    torch.save({"model": model.state_dict()}, tmp_path / "beit.pth")
    with pytest.raises(CheckpointError, match=r"rel_pos\.0\.table: not in the model \(relative positions take part"):
        load_encoder(encoder(init_values=1.0), tmp_path / "beit.pth")
    dense = encoder(DenseViT, out_indices=(2,), rel_pos_bias="per_block", init_values=1.0)
    report = load_encoder(dense, tmp_path / "beit.pth")
    assert not report.fresh and report.unused == ["norm.weight", "norm.bias"]
    with torch.inference_mode():
        expected = model.forward_intermediates(images(), indices=[2], norm=False, intermediates_only=True)[0]
        torch.testing.assert_close(dense(images())[0], expected, atol=ATOL, rtol=0)


def test_tables_of_zeros_are_no_obstacle(tmp_path):
    model = foreign.beit_model(use_rel_pos_bias=True)
    for block in model.blocks:
        torch.nn.init.zeros_(block.attn.relative_position_bias_table)
    torch.save(model.state_dict(), tmp_path / "beit.pth")
    ours = encoder(init_values=1.0)
    report = load_encoder(ours, tmp_path / "beit.pth")
    assert not report.unused and "rel_pos.0.table" in report.beside
    with torch.inference_mode():
        torch.testing.assert_close(ours(images()), model.forward_features(images()), atol=ATOL, rtol=0)


def test_tables_of_another_grid_are_resampled(tmp_path):
    model = foreign.beit_model(use_rel_pos_bias=True)
    torch.save(model.state_dict(), tmp_path / "beit.pth")
    dense = encoder(DenseViT, img_size=48, out_indices=(2,), rel_pos_bias="per_block", init_values=1.0)
    report = load_encoder(dense, tmp_path / "beit.pth")
    assert report.resampled.count("rel_pos.1.table") == 1
    kept = dense.rel_pos["1"].table[-3:]  # the class token's entries depend on no distance
    torch.testing.assert_close(kept, model.blocks[1].attn.relative_position_bias_table[-3:], atol=0, rtol=0)


# --- what a plain ViT cannot hold ----------------------------------------------------------------------------------


def registers() -> dict:
    return foreign.timm_model(reg_tokens=2, no_embed_class=True).state_dict()


def swiglu() -> dict:
    state = foreign.timm_model().state_dict()
    return {re.sub(r"mlp\.fc(\d)", lambda m: "mlp.w12" if m[1] == "1" else "mlp.w3", n): t for n, t in state.items()}


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (registers, r"reg_token: not in the model \(register tokens take part in attention"),
        (swiglu, r"missing from the checkpoint"),
        (lambda: foreign.timm_model(qk_norm=True).state_dict(), r"normalised queries and keys"),
        (lambda: foreign.timm_model(pre_norm=True).state_dict(), r"a norm before the blocks"),
    ],
    ids=["registers", "SwiGLU", "qk_norm", "pre_norm"],
)
def test_other_architectures_are_refused_with_the_reason(tmp_path, state, reason):
    torch.save(state(), tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=reason):
        load_encoder(encoder(), tmp_path / "other.pth")


def test_hugging_faces_giant_and_registers_are_refused(tmp_path):
    from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    giant = Dinov2Model(foreign._hf_config(Dinov2Config, use_swiglu_ffn=True))
    giant.save_pretrained(tmp_path / "giant")
    with pytest.raises(CheckpointError, match=r"mlp\.fc1\.weight: missing"):
        load_encoder(encoder(init_values=1.0), tmp_path / "giant")
    named = Dinov2WithRegistersModel(foreign._hf_config(Dinov2WithRegistersConfig))
    named.save_pretrained(tmp_path / "registers")
    with pytest.raises(CheckpointError, match="register tokens take part in attention"):
        load_encoder(encoder(init_values=1.0), tmp_path / "registers")


def test_what_only_the_config_says_is_checked(tmp_path):
    model = foreign.hf_vit(tmp_path)
    with pytest.raises(CheckpointError, match="3 attention heads, this config's encoder 4"):
        load_encoder(encoder(arch=foreign.ARCH | {"num_heads": 4}), model.source)
    config = (model.source / "config.json").read_text()
    (model.source / "config.json").write_text(config.replace('"gelu"', '"relu"'))
    with pytest.raises(CheckpointError, match="activation 'relu'"):
        load_encoder(encoder(), model.source)
    (model.source / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json is no JSON"):
        load_encoder(encoder(), model.source)
    (model.source / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        load_encoder(encoder(), model.source)
    (model.source / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="holds no weights"):
        load_encoder(encoder(), model.source)


def test_a_shard_outside_its_folder_is_refused(tmp_path):
    model = foreign.hf_dinov2_sharded(tmp_path)
    index = model.source / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"x": "../elsewhere.safetensors"}}')
    with pytest.raises(CheckpointError, match="outside its folder"):
        load_encoder(encoder(), model.source)


def test_another_patch_size_is_resampled_on_request_only(tmp_path):
    from timm.layers import resample_patch_embed

    model = foreign.timm_safetensors(tmp_path)
    ours = encoder(patch_size=4)
    with pytest.raises(CheckpointError, match=r"patch_embed\.proj\.weight: checkpoint") as caught:
        load_encoder(ours, model.source)
    assert "patches are of 8 x 8 pixels, this config's of 4 x 4" in caught.value.fix
    assert "--resample-patch-embed" in caught.value.fix
    report = load_encoder(ours, model.source, resample_patch_embed=True)
    assert set(report.resampled) == {"patch_embed.proj.weight", "pos_embed"}
    expected = resample_patch_embed(model.model.patch_embed.proj.weight, [4, 4])
    torch.testing.assert_close(ours.patch_embed.proj.weight, expected, atol=0, rtol=0)


def test_allowed_names_may_differ_in_shape_and_are_counted(tmp_path):
    model = foreign.timm_safetensors(tmp_path)
    ours = encoder(patch_size=4)
    fresh = ours.patch_embed.proj.weight.clone()
    report = load_encoder(ours, model.source, allow_missing=["patch_embed.proj.weight"])
    assert report.unused == report.fresh == ["patch_embed.proj.weight"]
    torch.testing.assert_close(ours.patch_embed.proj.weight, fresh, atol=0, rtol=0)
    assert "1 left over [patch_embed.proj.weight], 1 missing [patch_embed.proj.weight]" in str(report)


def test_an_unknown_format_is_an_error_that_lists_names(tmp_path):
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 2)).state_dict(), tmp_path / "mlp.pth")
    with pytest.raises(CheckpointError, match=r"of no known format; its first names are \['0.weight', '0.bias'\]"):
        load_encoder(encoder(), tmp_path / "mlp.pth")


def test_timm_names_are_downloaded_only_when_asked(monkeypatch):
    import timm

    asked = []

    def create(name, pretrained, num_classes):
        asked.append((name, pretrained))
        if name == "absent":
            raise RuntimeError("no connection\nto the hub")
        return foreign.timm_model()

    monkeypatch.setattr(timm, "create_model", create)
    load_encoder(encoder(), "timm:small.mae")
    assert asked == [("small.mae", True)]
    assert describe_encoder("timm:small.mae").num_heads == 3
    with pytest.raises(
        CheckpointError, match=r"timm model 'absent' could not be loaded: RuntimeError: no connection\n"
    ):
        load_encoder(encoder(), "timm:absent")
