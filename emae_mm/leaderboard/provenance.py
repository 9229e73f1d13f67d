"""The parts of a record that say by what and where it was made, without importing any framework."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from emae_mm import __version__
from emae_mm.leaderboard.schema import CodeVersion

LIBRARIES = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "onedl-mmengine",
    "onedl-mmcv",
    "onedl-mmpretrain",
    "onedl-mmdetection",
    "onedl-mmsegmentation",
)
"""Distributions whose versions can change a result."""


def library_versions() -> dict[str, str]:
    """Installed versions of ``LIBRARIES`` and of Python; what is not installed is left out."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def cpu_name() -> str:
    """Model name of the processor, as far as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def code_version() -> CodeVersion:
    """Version of this package and, where it is run from a git checkout, the commit."""
    root = Path(__file__).resolve().parents[2]
    commit = _git(root, "rev-parse", "HEAD") if (root / ".git").exists() else None
    if commit and _git(root, "status", "--porcelain", "--untracked-files=no"):
        commit += "+changes"
    return CodeVersion(version=__version__, commit=commit)


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
