"""Fixtures every test may use."""

import os
from pathlib import Path

import pytest
import torch
from mmengine.registry import DefaultScope

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repo() -> Path:
    """The checkout's root."""
    return REPO


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of small real data sets and reference numbers; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("EMAE_SHARED", REPO.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip("the folder of shared real data is not beside the checkout (set EMAE_SHARED to its path)")
    return folder


@pytest.fixture(autouse=True)
def _seeded():
    """Every test starts from the same random state."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _own_scope():
    """A run sets mmengine's default scope for the whole process: every test leaves it as it was."""
    before = dict(DefaultScope._instance_dict)
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)
