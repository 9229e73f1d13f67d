"""mmengine's checkpoint loader, made to read without running code.

Whatever names a checkpoint by OpenMMLab's means (``load_from``, ``resume``, ``init_cfg=dict(type='Pretrained')``) comes
to ``mmengine.runner.CheckpointLoader``. Its own readers fall back to unsafe loading; ours, registered in their places,
do not. Addresses are downloaded as mmengine does.
"""

import os
from pathlib import Path
from urllib.parse import urlparse

from emae_mm.checkpoints.reading import read_torch_file
from emae_mm.errors import CheckpointError


def load_from_local(filename: str, map_location=None) -> dict:
    """A file on this machine.

    Raises:
        CheckpointError: see :func:`~emae_mm.checkpoints.reading.read_torch_file`.
    """
    path = os.path.expanduser(filename)
    if Path(path).suffix == ".safetensors":
        from emae_mm.checkpoints.reading import read_checkpoint

        return {"state_dict": read_checkpoint(path).tensors}
    return read_torch_file(path, map_location)


def load_from_http(filename: str, map_location=None) -> dict:
    """An address; the file is kept in torch hub's folder, and only the first process of a machine downloads it.

    Raises:
        CheckpointError: it cannot be downloaded, or see :func:`load_from_local`.
    """
    from mmengine.dist import barrier, get_local_rank

    target = _cached(filename)
    if get_local_rank() == 0 and not target.is_file():
        _download(filename, target)
    barrier()
    return load_from_local(str(target), map_location)


def load_from_torchvision(filename: str, map_location=None) -> dict:
    """``torchvision://NAME``."""
    from mmengine.runner.checkpoint import get_torchvision_models

    return _load_named(filename, _name(filename), get_torchvision_models(), map_location)


def load_from_openmmlab(filename: str, map_location=None) -> dict:
    """``openmmlab://NAME``, or ``open-mmlab://NAME``."""
    from mmengine.runner.checkpoint import get_deprecated_model_names, get_external_models

    name = get_deprecated_model_names().get(_name(filename), _name(filename))
    return _load_named(filename, name, get_external_models(), map_location)


def load_from_mmcls(filename: str, map_location=None) -> dict:
    """``mmcls://NAME``: the backbone of a classification model."""
    from mmengine.runner.checkpoint import get_mmcls_models

    content = _load_named(filename, _name(filename), get_mmcls_models(), map_location)
    state = content.get("state_dict", content)
    backbone = {name.removeprefix("backbone."): t for name, t in state.items() if name.startswith("backbone.")}
    return {"state_dict": backbone}


def load_from_refused(filename: str, map_location=None) -> dict:
    """Storage that only readers of other libraries can open.

    Raises:
        CheckpointError: always.
    """
    raise CheckpointError(
        f"checkpoint {filename}: this storage cannot be read without running code from it",
        "download the file and give its path",
    )


def _name(filename: str) -> str:
    return filename.partition("://")[2]


def _load_named(filename: str, name: str, addresses: dict[str, str], map_location) -> dict:
    if name not in addresses:
        raise CheckpointError(f"no checkpoint is named {filename}", "check the name in the library's model zoo")
    address = addresses[name]
    if not address.startswith(("http://", "https://")):
        raise CheckpointError(f"{filename} stands for {address}, which is no address", "give a file")
    return load_from_http(address, map_location)


def _cached(address: str) -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(address).path).name


def _download(address: str, target: Path) -> None:
    import torch

    from emae_mm.fileio import replaced_atomically

    try:
        with replaced_atomically(target) as temporary:
            torch.hub.download_url_to_file(address, str(temporary), progress=False)
    except (OSError, ValueError) as error:  # no connection, no such address, disk full
        raise CheckpointError(
            f"checkpoint {address} could not be downloaded: {error}",
            "check address and connection, or download it elsewhere and give the file's path",
        ) from error


def install_safe_loading() -> None:
    """Register our readers in place of mmengine's, by its own means."""
    from mmengine.runner.checkpoint import CheckpointLoader

    for prefixes, loader in (
        ("", load_from_local),
        (("http://", "https://"), load_from_http),
        (("modelzoo://", "torchvision://"), load_from_torchvision),
        (("open-mmlab://", "openmmlab://"), load_from_openmmlab),
        ("mmcls://", load_from_mmcls),
        (("pavi://", r"(\S+\:)?s3://", r"(\S+\:)?petrel://"), load_from_refused),
    ):
        CheckpointLoader.register_scheme(prefixes, loader, force=True)
