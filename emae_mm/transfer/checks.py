"""What is looked at before a transfer starts, beside what every run checks by itself."""

import copy
import re
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from emae_mm.checkpoints import EncoderInfo, describe_encoder, weights_file
from emae_mm.checkpoints.reading import TIMM_PREFIX
from emae_mm.engine.distributed import share_batch
from emae_mm.engine.record_hook import LETTERS
from emae_mm.errors import ConfigError
from emae_mm.fileio import file_sha256
from emae_mm.registry import MODELS
from emae_mm.transfer.layouts import LAYOUTS, check_layout
from emae_mm.transfer.tasks import BASE, Task

RANDOM = "random"


@dataclass(frozen=True)
class Start:
    """The encoder a transfer starts from.

    Attributes:
        source: as the user gave it.
        arch: its name, as records have it.
        title: for people.
        slug: for a folder's name; files of equal names and other contents differ in it.
        has_layer_scale: whether its branches are scaled (CAE).
    """

    source: str
    arch: str
    title: str
    slug: str
    has_layer_scale: bool = False


def look_at(source: str, arch: str | None = None) -> Start:
    """What a checkpoint is.

    Args:
        source: a file or folder, ``timm:NAME``, or ``"random"``.
        arch: the encoder's name for ``"random"``.

    Raises:
        CheckpointError: there is none, or it holds no plain ViT.
        ConfigError: ``arch`` is given for a checkpoint, which says so itself.
    """
    if source == RANDOM:
        arch = arch or BASE
        return Start(source, arch, f"random {arch}", f"random-{_slug(arch)}")
    if arch is not None:
        raise ConfigError(f"--arch {arch} is for 'random' only", "leave it out: the checkpoint says its own size")
    encoder = describe_encoder(source)
    named = _name(encoder)
    method = encoder.meta.get("method")
    file = source if source.startswith(TIMM_PREFIX) else Path(source).name
    return Start(
        source,
        named,
        title=f"{file} ({method}, {named})" if method else f"{file} ({named})",
        slug=_slug(file.removesuffix(Path(file).suffix)) + _content(source),
        has_layer_scale=encoder.has_layer_scale,
    )


def _name(encoder: EncoderInfo) -> str:
    """As records call it: ``ViT-B/16``, or width x depth where that is no standard size."""
    letters = LETTERS[encoder.arch] if encoder.arch else f"ViT-{encoder.embed_dim}x{encoder.depth}"
    return f"{letters}/{encoder.patch_size}"


def _content(source: str) -> str:
    weights = weights_file(source)
    return f"-{file_sha256(weights)[:8]}" if weights else ""


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def find_data(root: Path | None, task: Task, declared: bool) -> Path | None:
    """The task's data folder; of a whole demonstration data set the part in the task's layout.

    Args:
        root: as the user gave it; None: the config's own.
        task: whose layout is needed.
        declared: whether the config is a declared one, whose layout is known.

    Raises:
        ConfigError: no folder given, or it does not exist.
        DataError: it is in another layout.
    """
    layout = LAYOUTS[task.layout]
    if root is None:
        if declared:
            raise ConfigError(
                f"--task {task.name} needs data: no --data-root given",
                f"give --data-root the folder that holds {layout.expected}",
            )
        return None
    if not root.is_dir():
        raise ConfigError(
            f"data root {root} is not a folder", f"give --data-root the folder that holds {layout.expected}"
        )
    if (part := root / layout.demo_folder).is_dir() and _is_demo(root):
        root = part
    if declared:
        check_layout(root, task.layout, f"--task {task.name}")
    return root


def _is_demo(root: Path) -> bool:
    from emae_mm.data.demo import is_demo_dataset

    return is_demo_dataset(root)


def check_config(cfg: Config, task: Task, processes: int) -> None:
    """Raise ConfigError unless the config is of this task and its batch divides among the processes."""
    if cfg.record.task != task.record_task:
        raise ConfigError(
            f"{Path(cfg.filename).name} is a config of {cfg.record.task}, not of --task {task.name}",
            f"choose a config whose record.task is {task.record_task!r}, or another --task",
        )
    share_batch(copy.deepcopy(cfg), processes)


def check_encoder(cfg: Config) -> None:
    """Build the config's encoder and load the checkpoint into it, once, before any process does.

    Raises:
        CheckpointError: it does not fit; says where and what to do.
    """
    MODELS.build(cfg.model.backbone).init_weights()
