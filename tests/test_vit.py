"""The encoder against timm, its checkpoints in both directions, and what does not fit."""

import pickle

import pytest
import timm
import torch

from emae_mm.checkpoints import export_encoder, load_encoder
from emae_mm.errors import CheckpointError, ConfigError
from emae_mm.models import ViTEncoder, ViTForClassification

TIMM_TINY = dict(embed_dim=48, depth=3, num_heads=3)


def timm_model(**kwargs):
    return timm.create_model("vit_base_patch16_224", num_classes=0, **{"global_pool": "token", **TIMM_TINY, **kwargs})


def tiny(cls=ViTEncoder, **kwargs):
    return cls(arch=TIMM_TINY, **kwargs)


def test_exported_vit_base_loads_into_timm_strictly_with_equal_features(tmp_path):
    encoder = ViTEncoder("base").eval()
    export_encoder(encoder, tmp_path / "encoder.pth", {"method": "EMAE"})
    state = torch.load(tmp_path / "encoder.pth", weights_only=True)
    theirs = timm.create_model("vit_base_patch16_224", num_classes=0).eval()
    theirs.load_state_dict(state["model"], strict=True)
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        assert torch.allclose(encoder(images), theirs.forward_features(images), atol=1e-5)
    assert state["meta"] == {"method": "EMAE"}


@pytest.mark.parametrize("size", [224, 384, (160, 256)])
def test_timm_weights_give_timm_features_at_any_size(size, tmp_path):
    theirs = timm_model(dynamic_img_size=True).eval()
    torch.nn.init.normal_(theirs.pos_embed)
    torch.save(theirs.state_dict(), tmp_path / "timm.pth")
    encoder = tiny().eval()
    load_encoder(encoder, tmp_path / "timm.pth")
    height, width = (size, size) if isinstance(size, int) else size
    images = torch.randn(2, 3, height, width)
    assert torch.allclose(encoder(images), theirs.forward_features(images), atol=1e-5)


def test_visible_tokens_are_encoded_part_by_part():
    encoder = tiny(img_size=64, patch_size=8).eval()
    tokens = encoder.embed(torch.randn(2, 3, 64, 64))
    ids_keep = torch.rand(2, 64).argsort(dim=1).view(2, 4, 16)
    together = encoder.encode_visible(tokens, ids_keep).unflatten(0, (2, 4))
    for image in range(2):
        for part in range(4):
            alone = encoder.encode(tokens[image : image + 1, ids_keep[image, part]])
            assert torch.allclose(together[image, part], alone[0], atol=1e-5)


def test_position_embedding_is_that_of_the_mae_release():
    """Channel 0 is sin of the column, channel D/2 sin of the row; the class token's row is zero."""
    pos = ViTEncoder(dict(embed_dim=8, depth=1, num_heads=1), img_size=32, patch_size=8).pos_embed[0]
    assert not pos[0].any()
    for index in range(16):
        row, column = divmod(index, 4)
        expected = []
        for value in (column, row):
            angles = torch.tensor([value * 1.0, value / 10000**0.5])
            expected += [*angles.sin(), *angles.cos()]
        assert torch.allclose(pos[1 + index], torch.stack(expected), atol=1e-6)


def test_checkpoints_of_every_wrapping_are_read(tmp_path):
    from safetensors.torch import save_file

    source = tiny(img_size=64, patch_size=8)
    state = source.state_dict()
    wrappings = {
        "flat.pth": state,
        "model.pth": {"model": state},
        "ddp.pth": {"model": {f"module.{k}": v for k, v in state.items()}},
        "openmmlab.pth": {
            "state_dict": {f"backbone.{k}": v for k, v in state.items()} | {"decoder.mask_token": torch.zeros(1, 1, 8)},
            "meta": {"epoch": 3},
        },
        "official.pth": {
            "model": state | {"mask_token": torch.zeros(1, 1, 8), "decoder_embed.weight": torch.zeros(8, 48)}
        },
    }
    for name, content in wrappings.items():
        torch.save(content, tmp_path / name)
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "x.safetensors")
    for name in [*wrappings, "x.safetensors"]:
        target = tiny(img_size=64, patch_size=8)
        report = load_encoder(target, tmp_path / name)
        assert len(report.used) == len(state), name
        assert all(torch.equal(a, b) for a, b in zip(target.state_dict().values(), state.values(), strict=True)), name


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (
            dict(arch=dict(embed_dim=96, depth=3, num_heads=3)),
            r"cls_token: checkpoint \(1, 1, 96\), model \(1, 1, 48\)",
        ),
        (dict(arch=dict(embed_dim=48, depth=4, num_heads=3)), r"blocks\.3\.norm1\.weight: not in the model"),
        (dict(arch=dict(embed_dim=48, depth=2, num_heads=3)), r"blocks\.2\.norm1\.weight: missing from the checkpoint"),
        (dict(arch=TIMM_TINY, patch_size=8), r"patch_embed\.proj\.weight"),
    ],
)
def test_another_architecture_is_an_error_that_lists_mismatches(other, named, tmp_path):
    torch.save(ViTEncoder(**{"img_size": 64, **other}).state_dict(), tmp_path / "other.pth")
    encoder = tiny(img_size=64)
    before = [t.clone() for t in encoder.state_dict().values()]
    with pytest.raises(CheckpointError, match=named) as error:
        load_encoder(encoder, tmp_path / "other.pth")
    assert "other.pth" in str(error.value)
    assert all(torch.equal(a, b) for a, b in zip(before, encoder.state_dict().values(), strict=True))


def test_decoder_only_or_foreign_files_are_errors(tmp_path):
    encoder = tiny(img_size=64)
    torch.save({"model": {"decoder_embed.weight": torch.zeros(2)}}, tmp_path / "decoder.pth")
    with pytest.raises(CheckpointError, match="missing from the checkpoint"):
        load_encoder(encoder, tmp_path / "decoder.pth")
    (tmp_path / "text.pth").write_text("not a checkpoint")
    with pytest.raises(CheckpointError, match=r"text\.pth is unreadable"):
        load_encoder(encoder, tmp_path / "text.pth")
    whole = tmp_path / "whole.pth"
    torch.save(encoder.state_dict(), whole)
    (tmp_path / "cut.pth").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="truncated"):
        load_encoder(encoder, tmp_path / "cut.pth")
    with pytest.raises(CheckpointError, match="does not exist"):
        load_encoder(encoder, tmp_path / "absent.pth")


class RunsCode:
    def __reduce__(self):
        return (print, ("code ran",))


def test_a_pickle_that_runs_code_is_refused(tmp_path, capsys):
    torch.save({"model": tiny(img_size=64).state_dict(), "extra": RunsCode()}, tmp_path / "evil.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"model": RunsCode()}))
    for name in ("evil.pth", "plain.pth"):
        with pytest.raises(CheckpointError, match=f"(?s){name}.*it would run code"):
            load_encoder(tiny(img_size=64), tmp_path / name)
    assert "code ran" not in capsys.readouterr().out


def test_classification_features_equal_timm_pooling(tmp_path):
    images = torch.randn(2, 3, 64, 64)
    theirs = timm_model(img_size=64).eval()
    torch.save(theirs.state_dict(), tmp_path / "t.pth")
    cls = tiny(ViTForClassification, img_size=64, pool="cls", frozen=True, pretrained=str(tmp_path / "t.pth"))
    cls.init_weights()
    assert torch.allclose(cls(images)[0], theirs(images), atol=1e-5)
    assert not cls.train().training and not any(p.requires_grad for p in cls.parameters())
    assert not cls(images)[0].requires_grad
    average = timm_model(img_size=64, global_pool="avg").eval()
    torch.save({k: v for k, v in average.state_dict().items() if not k.startswith("fc_norm")}, tmp_path / "a.pth")
    avg = tiny(ViTForClassification, img_size=64, pool="avg", pretrained=str(tmp_path / "a.pth"))
    avg.init_weights()
    assert torch.allclose(avg.eval()(images)[0], average(images), atol=1e-5)


def test_bad_architectures_are_refused():
    for kwargs, named in [
        (dict(arch="gigantic"), "gigantic"),
        (dict(arch=dict(embed_dim=50, depth=1, num_heads=3)), "embed_dim=50"),
        (dict(arch=dict(embed_dim=48)), "num_heads"),
        (dict(arch="tiny", img_size=225), "225"),
    ]:
        with pytest.raises(ConfigError, match=named):
            ViTEncoder(**kwargs)
    with pytest.raises(ConfigError, match="pool='max'"):
        ViTForClassification("tiny", pool="max")


def test_layer_depths():
    encoder = ViTEncoder("tiny", img_size=64)
    assert {encoder.get_layer_depth(n)[0] for n, _ in encoder.named_parameters()} == set(range(14))
    assert encoder.get_layer_depth("blocks.11.norm1.weight") == (12, 14)
    assert encoder.get_layer_depth("pos_embed") == (0, 14)
