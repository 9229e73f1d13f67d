"""What a config's one-line variables ask for: trackers, the k-NN probe, pictures."""

from importlib.util import find_spec
from pathlib import Path

from mmengine.config import Config

from emae_mm.errors import ConfigError
from emae_mm.leaderboard.schema import TRANSFER_TASKS

PROJECT = "emae_mm"
HOOKS_OF = {"knn_probe": "emae_mm.KNNProbeHook", "reconstruction_panel": "emae_mm.ReconstructionPanelHook"}
PICTURES_HOOK = "emae_mm.PicturesHook"
TRACKERS = ("wandb", "mlflow")


def check_tracker(cfg: Config) -> None:
    """Whether ``cfg.tracker`` is one, and installed.

    Raises:
        ConfigError: it is not.
    """
    tracker = cfg.get("tracker")
    if not tracker:
        return
    if tracker not in TRACKERS:
        raise ConfigError(f"tracker={tracker!r} is unknown", f"use one of {list(TRACKERS)}; TensorBoard is always on")
    if find_spec(tracker) is None:
        raise ConfigError(f"tracker={tracker!r} is asked for, but {tracker} is not installed",
                          f"pip install 'emae-mm[{tracker}]', or leave the tracker out")  # fmt: skip


def watch(cfg: Config) -> None:
    """Add to a config, in place, the tracker's back end and the hooks that ``knn_probe`` and so on ask for.

    The hooks belong to pre-training and are added there only; ``pictures`` belongs to transfers.
    """
    tracker, run = cfg.get("tracker"), Path(cfg.work_dir).name
    if tracker == "wandb":
        _add_backend(cfg, dict(type="WandbVisBackend", init_kwargs=dict(project=PROJECT, name=run)))
    elif tracker == "mlflow":
        _add_backend(cfg, dict(type="MLflowVisBackend", exp_name=PROJECT, run_name=run))
    task = cfg.get("record", {}).get("task")
    if task in TRANSFER_TASKS and cfg.get("pictures") is not None:
        cfg.custom_hooks = [*cfg.get("custom_hooks", []), dict(type=PICTURES_HOOK, **cfg.pictures)]
    if task == "pretrain":
        asked = [dict(type=kind, **cfg[name]) for name, kind in HOOKS_OF.items() if cfg.get(name) is not None]
        cfg.custom_hooks = [*cfg.get("custom_hooks", []), *asked]


def _add_backend(cfg: Config, backend: dict) -> None:
    """The back end, unless the config has one of its type already (which may say more, such as a server)."""
    backends = list(cfg.visualizer.get("vis_backends") or [])
    if backend["type"] not in {known["type"] for known in backends}:
        cfg.visualizer.vis_backends = [*backends, backend]
