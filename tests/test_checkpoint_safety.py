"""No file runs code when it is read, by whichever way a config or a command names it."""

import codecs
import pickle
import threading
from collections import OrderedDict
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import foreign_models as foreign
import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import load_checkpoint
from torch import nn
from toy_run import ToyModel, write_config

from emae_mm.checkpoints import read_checkpoint
from emae_mm.checkpoints.convert import convert
from emae_mm.engine import launch
from emae_mm.errors import CheckpointError
from emae_mm.models import ViTEncoder
from emae_mm.registry import MODELS

REFUSED = r"(?s)it would run code when loaded \(.*fix: re-save only its state dict"


class Creates:
    """A pickled call that makes a file: proof that code ran."""

    def __init__(self, proof: Path):
        self.proof = proof

    def __reduce__(self):
        return (Path.touch, (self.proof,))


def pickled(path: Path, content: dict) -> None:
    path.write_bytes(pickle.dumps(content, protocol=4))


def pickled_as_text(path: Path, content: dict) -> None:
    path.write_bytes(pickle.dumps(content, protocol=0))


def legacy_torch(path: Path, content: dict) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


FORMS = {"pickle": pickled, "protocol 0": pickled_as_text, "torch": lambda path, content: torch.save(content, path),
         "legacy torch": legacy_torch}  # fmt: skip


@pytest.fixture(params=FORMS.values(), ids=FORMS.keys())
def evil(request, tmp_path) -> tuple[Path, Path]:
    """A checkpoint that would create a file, and that file."""
    proof = tmp_path / "proof"
    state = foreign.timm_model().state_dict()
    content = {"model": {name: tensor.numpy() for name, tensor in state.items()}, "state_dict": {}}
    content["extra"] = Creates(proof)
    request.param(tmp_path / "evil.pth", content)
    return tmp_path / "evil.pth", proof


def test_the_trap_would_spring(tmp_path):
    torch.save({"extra": Creates(tmp_path / "proof")}, tmp_path / "evil.pth")
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert (tmp_path / "proof").is_file()


def encoder(**options) -> ViTEncoder:
    return ViTEncoder(foreign.ARCH, img_size=foreign.SIZE, patch_size=foreign.PATCH, **options)


def test_pretrained_and_convert(evil, tmp_path):
    file, proof = evil
    for read in (
        lambda: read_checkpoint(file),
        lambda: encoder(pretrained=str(file)).init_weights(),
        lambda: encoder(init_cfg=dict(type="Pretrained", checkpoint=str(file))).init_weights(),
        lambda: convert(file, tmp_path / "out.pth", "timm"),
    ):
        with pytest.raises(CheckpointError, match=REFUSED):
            read()
        assert not proof.exists()


@pytest.mark.parametrize("prefix", [None, "backbone."])
def test_init_cfg_of_a_librarys_model(evil, prefix):
    file, proof = evil
    init = dict(type="Pretrained", checkpoint=str(file)) | ({"prefix": prefix} if prefix else {})
    model = MODELS.build(dict(type="mmpretrain.VisionTransformer", arch=foreign.mmpretrain_arch(), img_size=32,
                              patch_size=8, init_cfg=init))  # fmt: skip
    with pytest.raises(CheckpointError, match=REFUSED):
        model.init_weights()
    assert not proof.exists()


def test_mmengines_own_loader(evil):
    file, proof = evil
    with pytest.raises(CheckpointError, match=REFUSED):
        load_checkpoint(nn.Linear(2, 2), str(file))
    assert not proof.exists()


@MODELS.register_module()
class InitModel(ToyModel):
    def __init__(self, *args, init_cfg: dict, **kwargs):
        super().__init__(*args, **kwargs)
        self.init_cfg = init_cfg


@pytest.mark.parametrize("key", ["load_from", "resume", "init_cfg"])
def test_configs(evil, tmp_path, key):
    file, proof = evil
    config = write_config(tmp_path / "toy.py", noisy=False, validate=False)
    options = {} if key == "init_cfg" else {key: str(file)}
    cfg = launch.prepare_config(config, work_dir=tmp_path / "work", **options)
    if key == "init_cfg":
        cfg.model.update(type="emae_mm.InitModel", init_cfg=dict(type="Pretrained", checkpoint=str(file)))
    with pytest.raises(CheckpointError, match=REFUSED):
        launch.run(cfg, quiet=True)
    assert not proof.exists()


# --- addresses -----------------------------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path, monkeypatch):
    """The address of a server of the test's folder; downloads are kept apart."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_downloads(served, tmp_path, monkeypatch):
    proof, whole = tmp_path / "proof", nn.Linear(2, 2)
    torch.save({"state_dict": {}, "extra": Creates(proof)}, tmp_path / "evil.pth")
    torch.save({"state_dict": whole.state_dict()}, tmp_path / "good.pth")
    zoo = {"evil": f"{served}/evil.pth", "good": f"{served}/good.pth"}
    monkeypatch.setattr("mmengine.runner.checkpoint.get_external_models", lambda: zoo)
    monkeypatch.setattr("mmengine.runner.checkpoint.get_torchvision_models", lambda: zoo)
    for source in (f"{served}/evil.pth", "openmmlab://evil", "open-mmlab://evil", "torchvision://evil"):
        with pytest.raises(CheckpointError, match=REFUSED):
            load_checkpoint(nn.Linear(2, 2), source)
        assert not proof.exists()
    for source in (f"{served}/good.pth", "openmmlab://good", "torchvision://good"):
        loaded = nn.Linear(2, 2)
        load_checkpoint(loaded, source, strict=True)
        assert torch.equal(loaded.weight, whole.weight)
    with pytest.raises(CheckpointError, match=r"absent\.pth could not be downloaded: HTTP Error 404"):
        load_checkpoint(nn.Linear(2, 2), f"{served}/absent.pth")
    with pytest.raises(CheckpointError, match="no checkpoint is named openmmlab://absent"):
        load_checkpoint(nn.Linear(2, 2), "openmmlab://absent")
    with pytest.raises(CheckpointError, match="cannot be read without running code"):
        load_checkpoint(nn.Linear(2, 2), "s3://bucket/evil.pth")


# --- what may be read ----------------------------------------------------------------------------------------------


def test_safetensors_are_read_by_mmengines_loader_too(tmp_path):
    model = foreign.timm_safetensors(tmp_path)
    loaded = foreign.timm_model()
    load_checkpoint(loaded, str(model.source), strict=True)
    assert torch.equal(loaded.cls_token, model.model.cls_token)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_arrays_of_every_protocol_are_read(tmp_path, protocol):
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.asfortranarray(np.eye(3)), "c": np.float64(2)}
    path = tmp_path / "arrays.pkl"
    path.write_bytes(pickle.dumps({"model": OrderedDict(arrays), "note": "x", "bytes": b"\xff"}, protocol=protocol))
    tensors = read_checkpoint(path).tensors
    assert torch.equal(tensors["a"], torch.arange(6.0).reshape(2, 3))
    assert torch.equal(tensors["b"], torch.eye(3, dtype=torch.float64))


def test_an_attribute_of_a_history_is_not_any_attribute(tmp_path):
    """mmengine's histories are pickled with ``getattr``, through which anything could be reached."""

    class Reaches:
        def __reduce__(self):
            return (getattr, (HistoryBuffer, "__init__"))

    torch.save({"state_dict": {}, "message_hub": Reaches()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="it would run code when loaded"):
        read_checkpoint(tmp_path / "evil.pth")


def test_another_codec_is_refused(tmp_path):
    class Decodes:
        def __reduce__(self):
            return (codecs.encode, ("x", "rot13"))

    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"model": Decodes()}))
    with pytest.raises(CheckpointError, match="it asks for the codec 'rot13'"):
        read_checkpoint(tmp_path / "evil.pkl")
