"""COCO-format detection data of any classes."""

import io
from contextlib import redirect_stdout
from pathlib import Path

from mmdet.datasets import CocoDataset

from emae_mm.data.classes import classes_of_coco
from emae_mm.errors import DataError
from emae_mm.registry import DATASETS


@DATASETS.register_module()
class CocoFormatDataset(CocoDataset):
    """mmdet's ``CocoDataset``, with the classes that the annotation file has.

    Labels number the categories in the order of the file's list, because mmdet's ``CocoMetric`` does so. Classes named
    in ``metainfo`` may be a part of them, in the same order; mmdet would silently swap labels for another order.

    Args:
        ann_file: an ``instances_*.json``, relative to ``data_root``.
        metainfo: ``dict(classes=..., palette=...)``; by default read from the file, with COCO's own palette for COCO's
            own classes and an equidistant one otherwise.
        data_root: the data set's folder.
        **kwargs: as for mmdet's ``CocoDataset`` (``data_prefix=dict(img=...)``, ``filter_cfg``, ``pipeline``, ...).

    Raises:
        DataError: the annotation file is missing or not COCO, or ``metainfo`` names classes it does not have, or names
            them in another order.
    """

    def __init__(self, ann_file: str, metainfo: dict | None = None, data_root: str | None = "", **kwargs):
        path = Path(data_root or "") / ann_file
        names = classes_of_coco(path)
        metainfo = dict(metainfo or {})
        if "classes" in metainfo:
            _require_same_order(tuple(metainfo["classes"]), names, path)
        else:
            metainfo["classes"] = names
        if "palette" not in metainfo:
            metainfo["palette"] = palette_for(metainfo["classes"])
        super().__init__(ann_file=ann_file, metainfo=metainfo, data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """As mmdet's, without the progress lines that pycocotools prints."""
        with redirect_stdout(io.StringIO()):
            return super().load_data_list()


def palette_for(classes: tuple[str, ...]) -> list[tuple[int, int, int]]:
    """One RGB colour (0..255) for each class: COCO's own for COCO's names, else evenly spaced hues."""
    own = dict(zip(CocoDataset.METAINFO["classes"], CocoDataset.METAINFO["palette"], strict=True))
    if all(name in own for name in classes):
        return [own[name] for name in classes]
    from colorsys import hsv_to_rgb

    hues = (hsv_to_rgb(index / len(classes), 0.8, 0.9) for index in range(len(classes)))
    return [tuple(round(255 * channel) for channel in colour) for colour in hues]


def _require_same_order(wanted: tuple[str, ...], names: tuple[str, ...], path: Path) -> None:
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise DataError(
            f"{path} has no category {unknown[:5]} ({len(unknown)} of the {len(wanted)} named classes are missing)",
            "leave metainfo out to take the classes of the file",
        )
    in_file_order = tuple(name for name in names if name in set(wanted))
    if in_file_order != wanted:
        raise DataError(
            f"the classes in metainfo are in another order than the categories of {path}",
            f"list them as {list(in_file_order[:5])}..., or leave metainfo out",
        )
