"""The command lines of ``tools/train.py`` and ``tools/test.py``, with OpenMMLab's usual options."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable

from emae_mm.errors import ConfigError, UserError

OTHERS_WAIT_S = 3.0


def _parser(description: str) -> argparse.ArgumentParser:
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("config", help="config file, or its name below configs/")
    parser.add_argument("--work-dir", help="where the run writes (default: work_dirs/<config name>)")
    parser.add_argument("--data-root", help="folder of the data set, in the config's format")
    parser.add_argument("--pretrained", help="encoder to start from: a file, timm:NAME, or 'random'")
    parser.add_argument(
        "--allow-missing", nargs="+", default=[], metavar="NAME",
        help="encoder tensors, or patterns like 'norm.*', that the checkpoint and the encoder need not both have",
    )  # fmt: skip
    parser.add_argument(
        "--resample-patch-embed", action="store_true", help="bring a checkpoint of another patch size to the encoder's"
    )
    parser.add_argument("--seed", type=int, help="seed of everything random (default: the config's)")
    parser.add_argument(
        "--cfg-options", nargs="+", action=DictAction, help="override config values: key.sub=value, lists as [a,b]"
    )
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none", help="job launcher")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help="set by some launchers")
    return parser


def _options(arguments: argparse.Namespace) -> dict:
    os.environ.setdefault("LOCAL_RANK", str(arguments.local_rank))
    names = ("work_dir", "data_root", "pretrained", "seed", "cfg_options", "launcher")
    names += ("allow_missing", "resample_patch_embed")
    return {name: getattr(arguments, name) for name in names}


def train_command() -> None:
    """Train one config; ``--resume`` goes on from the latest checkpoint, or from the one given."""
    parser = _parser("Train one config.")
    parser.add_argument("--resume", nargs="?", const="auto", help="go on from the latest checkpoint, or from this one")
    parser.add_argument("--amp", action="store_true", help="mixed precision: bfloat16 where the device has it")
    parser.add_argument("--auto-scale-lr", action="store_true", help="scale the learning rate with the batch")
    parser.add_argument("--fsdp", action="store_true", help="share the model among the processes instead of copying it")
    parser.add_argument(
        "--activation-checkpointing", action="store_true", help="compute blocks' activations anew in the backward pass"
    )
    parser.add_argument("--tracker", choices=["wandb", "mlflow"], help="log there, too (TensorBoard is always on)")
    parser.add_argument("--compile", action="store_true", help="compile the model with torch.compile")
    arguments = parser.parse_args()

    def work() -> None:
        from emae_mm.engine import launch

        names = ("amp", "auto_scale_lr", "fsdp", "activation_checkpointing", "compile", "tracker")
        extra = {name: getattr(arguments, name) for name in names}
        extra["resume"] = arguments.resume or False
        launch.run(launch.prepare_config(arguments.config, **_options(arguments), **extra))

    guarded(work)


def test_command() -> None:
    """Evaluate one config: k-NN, or a checkpoint that ``tools/train.py`` wrote."""
    parser = _parser("Evaluate one config on its test data.")
    parser.add_argument("checkpoint", nargs="?", help="a complete checkpoint of this config (none for k-NN configs)")
    arguments = parser.parse_args()

    def work() -> None:
        from emae_mm.engine import launch

        cfg = launch.prepare_config(arguments.config, **_options(arguments), load_from=arguments.checkpoint)
        launch.test(cfg)

    guarded(work)


def parse_options(words: Iterable[str]) -> dict:
    """``key.sub=value`` words as mmengine's ``DictAction`` reads them: a dotted key for each value.

    Raises:
        ConfigError: a word that is no ``key=value``.
    """
    from mmengine.config import DictAction

    parsed = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"{word!r} is not key=value", "give --cfg-options key.sub=value, lists as [a,b]")
        parsed[key] = DictAction._parse_iterable(value)
    return parsed


def guarded(work: Callable[[], None]) -> None:
    """Run ``work``; an error a user can mend is one message, and exit status 2."""
    try:
        work()
    except UserError as error:
        if os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) != "0":
            # Usually the first process has the same error; the launcher then ends this one before it repeats it.
            time.sleep(OTHERS_WAIT_S)
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(2)  # other processes may wait for this one in a collective: leave without them
