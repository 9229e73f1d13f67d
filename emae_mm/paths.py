"""Where things are: the configs (beside the package in a checkout, inside it in a wheel), and a run's encoder."""

from pathlib import Path

from emae_mm.errors import ConfigError

ENCODER_FILE = "encoder.pth"
"""What a pre-training run calls the encoder it exports into its work directory."""

PACKAGE = Path(__file__).resolve().parent


def configs_dir() -> Path:
    """The folder that holds ``pretrain/``, ``classification/``, ``detection/``, ``segmentation/`` and ``suites/``."""
    for candidate in (PACKAGE.parent / "configs", PACKAGE / ".mim" / "configs"):
        if (candidate / "pretrain").is_dir():
            return candidate
    raise ConfigError(
        "the configs/ folder of emae_mm was not found",
        "install with 'pip install -e .' from a checkout, or reinstall the package",
    )


def find_config(name: str | Path) -> Path:
    """A config by path, or by its path below ``configs/`` (the ``.py`` may be left out).

    Raises:
        ConfigError: there is no such file; close names are listed.
    """
    path = Path(name)
    candidates = [path, configs_dir() / path, configs_dir() / f"{path}.py"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    from difflib import get_close_matches

    known = {str(p.relative_to(configs_dir())): p for p in configs_dir().rglob("*.py") if "_base_" not in p.parts}
    near = get_close_matches(str(name), known, n=3, cutoff=0.3)
    raise ConfigError(f"config {str(name)!r} does not exist", f"did you mean one of {near}?" if near else "")
