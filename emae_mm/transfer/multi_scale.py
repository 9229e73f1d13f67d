"""The multi-scale test of a segmentation config, for a run that was trained and validated at one scale."""

from pathlib import Path

from mmengine.config import Config

from emae_mm.data.checks.config import plain_datasets
from emae_mm.errors import ConfigError
from emae_mm.paths import configs_dir

SUFFIX = "_ms"
"""What the multi-scale test of ``X.py`` is called: ``X_ms.py``."""


def use_several_scales(cfg: Config) -> None:
    """Give a run's config the test pipeline and loop of its multi-scale test, in place; the protocol says so.

    Raises:
        ConfigError: there is no multi-scale test for it.
    """
    name = Path(cfg.filename).stem
    found = next(configs_dir().rglob(f"{name}{SUFFIX}.py"), None)
    if found is None:
        raise ConfigError(
            f"--multi-scale: there is no multi-scale test for {name}",
            f"leave it out; segmentation protocols have one ({name}{SUFFIX}.py would be it)",
        )
    several = Config.fromfile(found)
    for dataset in plain_datasets(cfg.test_dataloader.dataset):  # a run's copy of its config has them wrapped
        dataset.cfg["pipeline"] = several.test_dataloader.dataset.pipeline
    cfg.test_cfg = several.test_cfg
    cfg.record.protocol = f"{cfg.record.protocol}{SUFFIX.replace('_', '-')}"
