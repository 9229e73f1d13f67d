"""The embedded demonstration data set: real handwritten digits on real photographs, made on first use.

It shows that every part of the line works; it is not a benchmark.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

from emae_mm.data.demo.layouts import (
    DENSE_DIGITS,
    DENSE_NAMES,
    DenseWriter,
    write_classified,
    write_json,
    write_segment_names,
)
from emae_mm.data.demo.scenes import make_scene
from emae_mm.data.demo.sources import PHOTOGRAPHS, Sources, load_sources
from emae_mm.errors import DataError, UserError

__all__ = ["describe", "is_demo_dataset", "make_demo_dataset"]

VERSION = 2  # of the scenes: another number makes existing folders be remade
_MANIFEST = "manifest.json"
_SIDES = {"classification": (0.75, 0.9), "dense": (0.5, 0.75)}  # of an object, in sides of the scene
_DIMMING = {"classification": (0.2, 0.5), "dense": (0.1, 0.3)}  # share of its brightness a photograph keeps
_OBJECTS = (1, 2)  # least and most in a dense scene


def make_demo_dataset(
    root: str | Path,
    *,
    num_train: int = 2000,
    num_val: int = 400,
    image_size: int = 64,
    dense_train: int = 800,
    dense_val: int = 150,
    dense_size: int = 64,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Make the demonstration data set under ``root``, unless it is there already.

    ``classification/{train,val}/<class>/*.jpg`` holds one large digit an image; ``coco/`` and ``ade20k/`` hold the same
    scenes of one or two large, bright digits of four classes with boxes and masks, and with label maps. Training and
    validation share neither source digits nor photographs. The bytes depend on the arguments and on the versions of the
    imaging libraries only. The folder appears whole or not at all.

    Args:
        root: the data set's folder; one that this function made with other arguments is replaced.
        num_train: labelled training images of the classification layout.
        num_val: labelled validation images of the classification layout.
        image_size: their side in pixels.
        dense_train: training scenes of the COCO and ADE20K layouts.
        dense_val: validation scenes of the COCO and ADE20K layouts.
        dense_size: their side in pixels.
        seed: of every random choice.
        progress: called with the numbers of scenes made and to be made.

    Returns:
        ``root`` as a path.

    Raises:
        DataError: ``root`` holds something else, or a number is too small.
        UserError: ``root`` cannot be written.
    """
    sizes = dict(
        num_train=num_train,
        num_val=num_val,
        image_size=image_size,
        dense_train=dense_train,
        dense_val=dense_val,
        dense_size=dense_size,
    )
    for name, value in sizes.items():
        least = 32 if name.endswith("size") else 10
        if value < least:
            raise DataError(f"the demonstration data set needs {name} >= {least}, not {value}", f"raise {name}")
    root = Path(root)
    wanted = dict(version=VERSION, seed=seed, **sizes)
    if _is_made(root, wanted):
        return root
    _refuse_foreign(root)
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
    except OSError as error:
        raise UserError(f"cannot write {root} ({error.strerror})", "choose another folder") from error
    try:
        _write_all(temporary, wanted, progress or (lambda done, total: None))
        temporary.chmod(0o755)  # mkdtemp's folders are private
        _put_in_place(temporary, root, wanted)
    except OSError as error:
        raise UserError(
            f"cannot write {root} ({error.strerror})", "free disk space or choose another folder"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return root


def describe() -> str:
    """What the data set is, for its README and for people who ask."""
    names = {split: ", ".join(Path(name).stem for name in photographs) for split, photographs in PHOTOGRAPHS.items()}
    return f"""# Demonstration data set (version {VERSION})

Handwritten digits (scikit-learn's copy of the UCI optical recognition set) as objects on crops of photographs that the
packages scikit-image and scikit-learn carry. It is made by emae_mm on first use, from a seed, to show that the whole
line works. **It is a demonstration, not a benchmark: publish no number measured on it.**

- `classification/{{train,val}}/<class>/*.jpg`: one large digit an image; 10 classes, balanced.
- `coco/`: one or two large, bright digits on a darkened photograph; `annotations/instances_{{train,val}}2017.json` with
  boxes and run-length masks.
- `ade20k/`: the same scenes; label values 0 unlabelled (blended edges), 1 background, 2 to 5 digits; `classes.json`.
- `{_MANIFEST}`: version, seed, sizes, and the source digits and photographs of each split.

The scenes of `coco/` and `ade20k/` show the digits {", ".join(DENSE_NAMES)} alone, bright on strongly darkened
photographs: they are easy on purpose, so that training for seconds on a CPU shows progress.

Training and validation share neither source digits nor photographs.
Photographs of the training split: {names["train"]}.
Photographs of the validation split: {names["val"]}.
"""


def is_demo_dataset(folder: str | Path) -> bool:
    """Whether a folder is a demonstration data set that :func:`make_demo_dataset` made, or one of its layouts."""
    for root in (Path(folder).resolve(), Path(folder).resolve().parent):
        try:
            manifest = json.loads((root / _MANIFEST).read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(manifest, dict) and {"version", "photographs", "digits"} <= set(manifest):
            return True
    return False


def _write_all(root: Path, wanted: dict, progress: Callable[[int, int], None]) -> None:
    total = sum(wanted[key] for key in ("num_train", "num_val", "dense_train", "dense_val"))
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    digit_ids = {}
    for number, split in enumerate(("train", "val")):
        sources = load_sources(split, wanted["seed"])
        digit_ids[split] = [int(index) for index in sources.digit_ids]
        rng = np.random.default_rng([wanted["seed"], number])
        _write_classification(root, split, sources, rng, wanted[f"num_{split}"], wanted["image_size"], step)
        _write_dense(root, split, sources, rng, wanted[f"dense_{split}"], wanted["dense_size"], step)
    write_segment_names(root)
    (root / "README.md").write_text(describe(), encoding="utf-8")
    libraries = {name: version(name) for name in ("numpy", "pillow", "scikit-image", "scikit-learn")}
    photographs = {split: list(names) for split, names in PHOTOGRAPHS.items()}
    write_json(root / _MANIFEST, dict(**wanted, photographs=photographs, digits=digit_ids, libraries=libraries))


def _write_classification(
    root: Path, split: str, sources: Sources, rng: np.random.Generator, count: int, size: int, step: Callable
) -> None:
    sides, dimming = tuple(share * size for share in _SIDES["classification"]), _DIMMING["classification"]
    for index in range(count):
        write_classified(root, split, index, make_scene(sources, rng, size, [index % 10], sides, dimming))
        step()


def _write_dense(
    root: Path, split: str, sources: Sources, rng: np.random.Generator, count: int, size: int, step: Callable
) -> None:
    sides, dimming = tuple(share * size for share in _SIDES["dense"]), _DIMMING["dense"]
    writer = DenseWriter(root, split)
    for _ in range(count):
        digits = rng.choice(DENSE_DIGITS, size=rng.integers(_OBJECTS[0], _OBJECTS[1] + 1)).tolist()
        writer.add(make_scene(sources, rng, size, digits, sides, dimming))
        step()
    writer.close()


def _is_made(root: Path, wanted: dict) -> bool:
    try:
        manifest = json.loads((root / _MANIFEST).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and all(manifest.get(key) == value for key, value in wanted.items())


def _refuse_foreign(root: Path) -> None:
    """What this module did not make is never deleted."""
    own = root.is_dir() and ((root / _MANIFEST).is_file() or not any(root.iterdir()))
    if root.exists() and not own:
        raise DataError(
            f"{root} exists and is not the demonstration data set", "choose another folder, or move that one away"
        )


def _put_in_place(temporary: Path, root: Path, wanted: dict) -> None:
    old = None
    if root.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{root.name}.old.", dir=root.parent))
        os.replace(root, old)
    try:
        os.replace(temporary, root)
    except OSError:
        if old is not None and not root.exists():
            os.replace(old, root)
        if not _is_made(root, wanted):  # else another process was faster with the same
            raise
    finally:
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)
