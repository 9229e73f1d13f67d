"""``pretrained=`` takes every format in every kind of transfer config, and says how it may differ."""

from pathlib import Path

import foreign_models as foreign
import pytest
import torch

from emae_mm.checkpoints.convert import convert
from emae_mm.engine import launch
from emae_mm.engine.record_hook import RecordHook
from emae_mm.errors import CheckpointError, ConfigError
from emae_mm.fileio import file_sha256
from emae_mm.models import ViTEncoder
from emae_mm.registry import MODELS

KINDS = [
    "classification/demo/knn_vit-demo_demo",
    "classification/demo/linear_vit-demo_demo",
    "classification/demo/finetune_vit-demo_demo",
    "detection/demo/mask-rcnn_vit-demo_demo",
    "detection/demo/vitdet_mask-rcnn_vit-demo_demo",
    "detection/demo/vitdet_cascade-mask-rcnn_vit-demo_demo",
    "segmentation/demo/upernet_vit-demo_demo",
    "segmentation/demo/upernet-cae_vit-demo_demo",
]
FILES = {"timm": "x.safetensors", "mae": "x.pth", "hf": "x", "mmpretrain": "x.pth", "detectron2": "x.pkl",
         "emae": "x.pth"}  # fmt: skip
LINEAR = "classification/demo/linear_vit-demo_demo"


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> tuple[dict[str, Path], dict[str, torch.Tensor]]:
    """The same encoder of the demonstration's size in every format, and its tensors."""
    folder = tmp_path_factory.mktemp("sources")
    backbone = launch.prepare_config(LINEAR, pretrained="random").model.backbone
    model = foreign.timm_model(**backbone.arch, img_size=backbone.img_size, patch_size=backbone.patch_size)
    torch.save(model.state_dict(), folder / "timm.pth")
    written = {to: folder / to / name for to, name in FILES.items()}
    for to, out in written.items():
        convert(folder / "timm.pth", out, to, num_heads=backbone.arch.num_heads)
    return written, model.state_dict()


@pytest.mark.parametrize("config", KINDS)
def test_every_kind_of_transfer_takes_every_format(sources, config):
    written, expected = sources
    cfg = launch.prepare_config(config, pretrained=str(written["timm"]))
    assert cfg.model.backbone.pretrained == str(written["timm"])
    for to, source in written.items():
        backbone = MODELS.build({**cfg.model.backbone, "pretrained": str(source)})
        backbone.init_weights()
        got = backbone.state_dict()
        shared = [name for name in expected if name in got]
        assert sum(name.startswith("blocks.") for name in shared) == 12 * backbone.depth, to
        assert {"patch_embed.proj.weight", "pos_embed"} <= set(shared)
        assert all(torch.equal(got[name], expected[name]) for name in shared), to


def test_openmmlabs_way_of_saying_pretrained(sources):
    written, expected = sources
    backbone = launch.prepare_config(LINEAR, pretrained="random").model.backbone
    backbone.update(pretrained="", init_cfg=dict(type="Pretrained", checkpoint=str(written["mmpretrain"])))
    encoder = MODELS.build(backbone)
    encoder.init_weights()
    assert torch.equal(encoder.cls_token, expected["cls_token"])


def test_how_it_may_differ_reaches_the_encoder_and_the_record(sources, tmp_path):
    written, expected = sources
    torch.save({name: tensor for name, tensor in expected.items() if "norm." not in name[:5]}, tmp_path / "x.pth")
    cfg = launch.prepare_config(LINEAR, pretrained=str(tmp_path / "x.pth"))
    with pytest.raises(CheckpointError, match=r"norm\.weight: missing"):
        MODELS.build(cfg.model.backbone).init_weights()
    cfg = launch.prepare_config(LINEAR, pretrained=str(tmp_path / "x.pth"), allow_missing=["norm.*"])
    MODELS.build(cfg.model.backbone).init_weights()
    assert cfg.record.protocol.endswith("with allow_missing=['norm.*']")

    options = dict(pretrained=str(written["timm"]), cfg_options={"model.backbone.patch_size": 16})
    cfg = launch.prepare_config(LINEAR, **options)
    with pytest.raises(CheckpointError, match=r"patch_embed\.proj\.weight") as caught:
        MODELS.build(cfg.model.backbone).init_weights()
    assert "--resample-patch-embed" in caught.value.fix
    cfg = launch.prepare_config(LINEAR, **options, resample_patch_embed=True)
    MODELS.build(cfg.model.backbone).init_weights()
    assert "resample_patch_embed=True" in cfg.record.protocol
    with pytest.raises(ConfigError, match="takes no pretrained encoder"):
        launch.prepare_config("pretrain/demo/mae_vit-demo_demo", allow_missing=["norm.*"])
    with pytest.raises(ConfigError, match=r"unknown keys \['alow_missing'\]"):
        ViTEncoder("tiny", pretrained_options=dict(alow_missing=["norm.*"]))


@pytest.mark.parametrize("to", list(FILES))
def test_records_identify_files_and_folders(sources, tmp_path, to):
    source = sources[0][to]
    cfg = launch.prepare_config(LINEAR, pretrained=str(source))
    file, start = RecordHook._start(cfg, tmp_path)
    assert file == (source / "model.safetensors" if to == "hf" else source)
    assert len(file_sha256(file)) == 64
    assert start["method"] == source.name  # nothing else says it
