"""``emae-mm convert``: what is written loads strictly into the independent models, bit for bit."""

import pickle

import foreign_models as foreign
import pytest
import torch
from typer.testing import CliRunner

from emae_mm.checkpoints import describe_encoder, load_encoder, read_checkpoint
from emae_mm.checkpoints.convert import convert
from emae_mm.checkpoints.describe import find_encoder
from emae_mm.checkpoints.formats import targets
from emae_mm.cli import app
from emae_mm.errors import CheckpointError, ConfigError
from emae_mm.models import DenseViT, ViTEncoder

CASES = [pytest.param(build, id=build.__name__) for builds in foreign.PLAIN.values() for build in builds]
LAYER_SCALE = ["blocks.*.ls?.gamma"]


def tensors_of(source) -> dict[str, torch.Tensor]:
    """A checkpoint's encoder under timm's names."""
    return find_encoder(read_checkpoint(source))[1].tensors


def assert_same(got: dict, expected: dict) -> None:
    assert set(got) == set(expected)
    assert all(torch.equal(got[name], expected[name]) for name in expected)


def out_name(to: str) -> str:
    return {"hf": "out", "detectron2": "out.pkl"}.get(to, "out.pth")


def test_all_formats_named_by_the_command_can_be_written():
    assert set(targets()) == {"timm", "mae", "hf", "mmpretrain", "detectron2", "emae"}


@pytest.mark.parametrize("build", CASES)
def test_every_format_becomes_every_other_and_nothing_is_lost(tmp_path, build):
    model = build(tmp_path)
    before = tensors_of(model.source)
    for to in targets():
        out = tmp_path / to / out_name(to)
        if to in ("mae", "detectron2") and model.options:
            with pytest.raises(CheckpointError, match=r"ls1\.gamma: not in the format .* \(LayerScale"):
                convert(model.source, out, to, num_heads=3)
            assert not out.exists()
            report = convert(model.source, out, to, LAYER_SCALE, num_heads=3)
            assert len(report.unused) == 6
            expected = {name: tensor for name, tensor in before.items() if ".ls" not in name}
        else:
            report = convert(model.source, out, to, num_heads=3)
            assert not report.unused and not report.fresh and len(report.used) == len(before)
            expected = before
        assert_same(tensors_of(out), expected)
        # encoders alone have timm's names and nothing else to tell MAE's or an unnamed method's by
        name = describe_encoder(out).format
        assert name == to or (name == "timm" and to in ("mae", "emae"))


def loaded_by_transformers(kind, folder, **options):
    model, info = kind.from_pretrained(folder, output_loading_info=True, **options)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    return model.eval()


def images() -> torch.Tensor:
    return torch.randn(2, 3, foreign.SIZE, foreign.SIZE, generator=torch.Generator().manual_seed(1))


def test_transformers_reads_its_models_back(tmp_path):
    from transformers import Dinov2Model, ViTMAEModel, ViTModel

    vit, mae, dinov2 = foreign.hf_vit(tmp_path), foreign.hf_mae(tmp_path), foreign.hf_dinov2_sharded(tmp_path)
    for name, model in (("a", vit), ("b", mae), ("c", dinov2)):
        convert(model.source, tmp_path / name, "hf")
    got = loaded_by_transformers(ViTModel, tmp_path / "a", add_pooling_layer=False)
    assert_same(got.state_dict(), {n: t for n, t in vit.model.state_dict().items() if not n.startswith("pooler")})
    got = loaded_by_transformers(ViTMAEModel, tmp_path / "b")
    assert_same(got.state_dict(), mae.model.vit.state_dict())
    got = loaded_by_transformers(Dinov2Model, tmp_path / "c")
    assert_same(got.state_dict(), {n: t for n, t in dinov2.model.state_dict().items() if "mask_token" not in n})


def test_transformers_computes_the_features_of_timms_model(tmp_path):
    from transformers import AutoModel, ViTMAEModel, ViTModel

    model = foreign.timm_safetensors(tmp_path)
    with torch.inference_mode():
        expected = model.tokens(images())
        convert(model.source, tmp_path / "vit", "hf", num_heads=3)
        got = loaded_by_transformers(ViTModel, tmp_path / "vit", add_pooling_layer=False)
        # float32, three blocks, queries, keys and values as three products
        torch.testing.assert_close(got(images()).last_hidden_state, expected, atol=1e-5, rtol=0)
        torch.save(read_checkpoint(model.source).tensors | {"decoder_pos_embed": torch.zeros(1)}, tmp_path / "mae.pth")
        convert(tmp_path / "mae.pth", tmp_path / "mae", "hf", num_heads=3)
        mae = loaded_by_transformers(ViTMAEModel, tmp_path / "mae")
        mae.config.mask_ratio = 0.0
        torch.testing.assert_close(foreign.mae_tokens(mae, images()), expected, atol=1e-5, rtol=0)
        scaled = foreign.cae_release(tmp_path)
        convert(scaled.source, tmp_path / "scaled", "hf", num_heads=3)
        got = AutoModel.from_pretrained(tmp_path / "scaled").eval()
        assert type(got).__name__ == "Dinov2Model"
        torch.testing.assert_close(got(images()).last_hidden_state, scaled.tokens(images()), atol=1e-5, rtol=0)


def test_mmpretrain_reads_its_models_back_strictly(tmp_path):
    from mmengine.runner import load_checkpoint
    from mmpretrain.models import VisionTransformer

    for build in (foreign.mmpretrain_vit, foreign.mmpretrain_cae, foreign.timm_layer_scale):
        model = build(tmp_path)
        out = tmp_path / f"{build.__name__}_out.pth"
        convert(model.source, out, "mmpretrain")
        theirs = VisionTransformer(
            foreign.mmpretrain_arch(), foreign.SIZE, foreign.PATCH, out_type="raw", layer_scale_init_value=1.0
        )
        load_checkpoint(theirs, str(out), strict=True)
        theirs.eval()
        with torch.inference_mode():
            torch.testing.assert_close(theirs(images())[0], model.tokens(images()), atol=1e-5, rtol=0)  # as above
        if build is foreign.mmpretrain_vit:
            assert_same(theirs.state_dict(), model.model.state_dict())


@pytest.mark.parametrize("to", ["timm", "mae", "emae"])
def test_timm_reads_its_models_back_strictly(tmp_path, to):
    model = foreign.timm_with_head(tmp_path)
    convert(model.source, tmp_path / "out.pth", to)
    content = torch.load(tmp_path / "out.pth", weights_only=True)
    state = content if to == "timm" else content["model"]
    theirs = foreign.timm_model()
    theirs.load_state_dict(state)
    assert_same(state, {n: t for n, t in model.model.state_dict().items() if not n.startswith("head")})


def test_a_fine_tuned_model_keeps_its_norm_of_the_mean(tmp_path):
    model = foreign.timm_model(num_classes=7, global_pool="avg")
    torch.save({"model": model.state_dict()}, tmp_path / "finetuned.pth")
    convert(tmp_path / "finetuned.pth", tmp_path / "out.safetensors", "timm")
    foreign.timm_model(global_pool="avg").load_state_dict(read_checkpoint(tmp_path / "out.safetensors").tensors)
    with pytest.raises(CheckpointError, match=r"fc_norm\.weight: not in the format hf"):
        convert(tmp_path / "finetuned.pth", tmp_path / "hf", "hf", num_heads=3)


@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
def test_detectron2_gets_arrays_or_tensors_under_its_names(tmp_path, suffix):
    source, model = foreign.detectron2_vitdet(tmp_path)
    out = tmp_path / f"out{suffix}"
    report = convert(source, out, "detectron2")
    assert not report.unused and not report.fresh and len(report.beside) == 2
    before = pickle.loads(source.read_bytes(), encoding="latin1")["model"]
    if suffix == ".pkl":  # detectron2 asks for these two keys and takes the names as they are
        content = pickle.loads(out.read_bytes(), encoding="latin1")
        assert set(content) == {"model", "__author__"}
        got = {name: torch.from_numpy(array) for name, array in content["model"].items()}
    else:
        got = torch.load(out, weights_only=True)["model"]
    assert_same(got, {n: torch.from_numpy(t) for n, t in before.items() if n.startswith("backbone.net.")})
    assert torch.equal(got["backbone.net.blocks.0.attn.rel_pos_h"], model.blocks[0].attn.rel_pos_h)


def test_a_detectors_backbone_says_what_a_plain_encoder_misses(tmp_path):
    source, _ = foreign.mmdet_vitdet(tmp_path)
    with pytest.raises(CheckpointError, match="cls_token: missing from the checkpoint"):
        convert(source, tmp_path / "out.pth", "emae")
    report = convert(source, tmp_path / "out.pth", "emae", ["cls_token", "norm.*"])
    assert report.fresh == ["cls_token", "norm.weight", "norm.bias"] and not report.unused
    dense = DenseViT(
        arch=foreign.ARCH, img_size=foreign.SIZE, patch_size=foreign.PATCH, out_indices=(2,), use_cls_token=False,
        window_size=foreign.WINDOW, global_blocks=(2,), rel_pos_bias="decomposed",
    )  # fmt: skip
    assert not load_encoder(dense, tmp_path / "out.pth").fresh
    with pytest.raises(CheckpointError, match=r"rel_pos_h: not in the format hf \(relative positions"):
        convert(source, tmp_path / "hf", "hf", ["cls_token", "norm.*"], num_heads=3)


def test_the_method_and_heads_travel(tmp_path):
    exported, mae = foreign.exported(tmp_path), foreign.mae_pretraining(tmp_path)
    convert(exported.source, tmp_path / "a.pth", "emae", num_heads=3)
    assert read_checkpoint(tmp_path / "a.pth").meta == {"method": "EMAE", "num_heads": 3}
    assert describe_encoder(tmp_path / "a.pth").num_heads == 3
    convert(mae.source, tmp_path / "b.pth", "emae")
    assert read_checkpoint(tmp_path / "b.pth").meta == {"method": "MAE"}


def test_a_standard_width_says_its_heads(tmp_path):
    tiny = ViTEncoder("tiny", img_size=32)
    torch.save(tiny.state_dict(), tmp_path / "tiny.pth")
    convert(tmp_path / "tiny.pth", tmp_path / "hf", "hf")
    assert describe_encoder(tmp_path / "hf").num_heads == 3
    info = describe_encoder(tmp_path / "tiny.pth")
    assert (info.arch, info.num_heads, info.grid) == ("tiny", 3, (2, 2))


def test_bad_input(tmp_path):
    model = foreign.timm_with_head(tmp_path)
    with pytest.raises(ConfigError, match="--to beit is no format that can be written"):
        convert(model.source, tmp_path / "out.pth", "beit")
    with pytest.raises(CheckpointError, match="the number of attention heads"):
        convert(model.source, tmp_path / "hf", "hf")
    assert not (tmp_path / "hf").exists()
    with pytest.raises(ConfigError, match="--num-heads 5 does not divide the width 48"):
        convert(model.source, tmp_path / "hf", "hf", num_heads=5)
    with pytest.raises(CheckpointError, match=r"out\.txt cannot be written in this format"):
        convert(model.source, tmp_path / "out.txt", "timm")
    with pytest.raises(CheckpointError, match="looks like a file"):
        convert(model.source, tmp_path / "out.pth", "hf", num_heads=3)
    folder = foreign.hf_vit(tmp_path)
    with pytest.raises(ConfigError, match="--num-heads 4 contradicts the checkpoint, which says 3"):
        convert(folder.source, tmp_path / "out.pth", "emae", num_heads=4)
    packed = foreign.timm_model().state_dict()
    packed["blocks.1.mlp.fc2.weight"] = torch.zeros(foreign.WIDTH, 96)
    torch.save(packed, tmp_path / "packed.pth")
    with pytest.raises(CheckpointError, match="block 1 has an MLP of"):
        convert(tmp_path / "packed.pth", tmp_path / "out.pth", "timm")


@pytest.mark.parametrize("to", ["detectron2", "hf", "timm"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_floats_keep_their_values(tmp_path, to, dtype):
    state = {name: tensor.to(dtype) for name, tensor in foreign.timm_model().state_dict().items()}
    torch.save(state, tmp_path / "short.pth")
    convert(tmp_path / "short.pth", tmp_path / to / out_name(to), to, num_heads=3)
    got = tensors_of(tmp_path / to / out_name(to))
    assert got.keys() == state.keys()
    assert all(torch.equal(tensor.float(), state[name].float()) for name, tensor in got.items())


def test_a_file_without_its_value_biases_is_damaged(tmp_path):
    state = foreign.beit_model(use_abs_pos_emb=True).state_dict()
    del state["blocks.1.attn.v_bias"]
    torch.save(state, tmp_path / "beit.pth")
    with pytest.raises(CheckpointError, match=r"blocks\.1\.attn\.q_bias has no v_bias beside it"):
        convert(tmp_path / "beit.pth", tmp_path / "out.pth", "timm")


def test_command(tmp_path):
    model, out = foreign.mae_pretraining(tmp_path), tmp_path / "out.pth"
    command = ["convert", str(model.source), str(out), "--to", "timm"]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0
    assert "(mae): 42 of 42 encoder tensors used, 0 resampled, 0 left over, 0 missing;" in done.output
    assert f"written: {out} (timm, 42 tensors)" in done.output
    again = CliRunner().invoke(app, command)
    assert isinstance(again.exception, ConfigError) and f"{out} exists" in str(again.exception)
    assert CliRunner().invoke(app, [*command, "--force"]).exit_code == 0
    scaled = foreign.timm_layer_scale(tmp_path)
    command = ["convert", str(scaled.source), str(out), "--to", "mae", "--force"]
    assert isinstance(CliRunner().invoke(app, command).exception, CheckpointError)
    done = CliRunner().invoke(
        app, [*command, "--allow-missing", "blocks.*.ls1.gamma", "--allow-missing", "*.ls2.gamma"]
    )
    assert done.exit_code == 0 and "42 of 48 encoder tensors used, 0 resampled, 6 left over" in done.output
