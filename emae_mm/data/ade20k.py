"""Semantic segmentation data in ADE20K's convention: label value 0 is unlabelled, 1..C are the classes."""

from pathlib import Path
from typing import Any

from mmseg.datasets import BaseSegDataset

from emae_mm.data.classes import metainfo_of_ade20k
from emae_mm.data.files import IMAGE_EXTENSIONS, label_map_name, list_images, require_folder
from emae_mm.errors import DataError
from emae_mm.registry import DATASETS


@DATASETS.register_module()
class ADE20KFormatDataset(BaseSegDataset):
    """mmseg's ``BaseSegDataset``, with the classes that the data set lists (``metainfo_of_ade20k``).

    Args:
        data_root: the data set's folder, with ``classes.json`` or ADE20K's ``objectInfo150.txt``.
        metainfo: ``dict(classes=..., palette=...)`` in place of what the data set lists.
        reduce_zero_label: ADE20K's convention: 0 is ignored, value k is class k - 1. False: 0 is the first class.
        img_suffix: take only images with this ending; by default all kinds of images (".jpg" with an ``ann_file``).
        seg_map_suffix: ending of the label maps.
        ann_file: a list of image names without their ending, one a line, in place of all images of the folder.
        **kwargs: as for mmseg's ``BaseSegDataset`` (``data_prefix=dict(img_path=..., seg_map_path=...)``, ...).

    Raises:
        DataError: a folder is missing or empty, or the classes are not known; (on reading a sample) its label map is
            missing, no image, or has values that are no class.
    """

    def __init__(
        self,
        data_root: str,
        metainfo: dict | None = None,
        reduce_zero_label: bool = True,
        img_suffix: str | None = None,
        seg_map_suffix: str = ".png",
        ann_file: str = "",
        **kwargs,
    ):
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            metainfo=metainfo if metainfo and "classes" in metainfo else metainfo_of_ade20k(data_root),
            reduce_zero_label=reduce_zero_label,
            img_suffix=img_suffix or (".jpg" if ann_file else IMAGE_EXTENSIONS),
            seg_map_suffix=seg_map_suffix,
            **kwargs,
        )

    def prepare_data(self, idx: int) -> Any:
        """The pipeline's result for one image, whose label map is known to hold classes only.

        mmseg would leave other values out of the scores without a word, and fail in training without naming the file.
        """
        path = self.get_data_info(idx).get("seg_map_path")
        try:
            data = super().prepare_data(idx)
        except (OSError, SyntaxError) as error:  # Pillow's, of the label map: LoadImage has errors of its own
            problem = f"the label map {path} cannot be used: {error}"
            raise DataError(problem, "replace it, or remove its image") from error
        sample = data.get("data_samples") if isinstance(data, dict) else None
        if sample is not None and "gt_sem_seg" in sample:
            labels = sample.gt_sem_seg.data
            wrong = labels[(labels >= len(self.metainfo["classes"])) & (labels != self.ignore_index)]
            if len(wrong):
                values = (wrong.unique() + self.reduce_zero_label).tolist()
                raise DataError(
                    f"the label map {path} has values that are no class: {values[:5]}",
                    f"correct the map, or name all classes (there are {len(self.metainfo['classes'])})",
                )
        return data

    def load_data_list(self) -> list[dict]:
        """One dict an image with ``img_path``, ``seg_map_path`` and what mmseg's ``LoadAnnotations`` needs."""
        if self.ann_file:
            return super().load_data_list()
        folder = require_folder(self.data_prefix["img_path"], "folder of images")
        suffixes = (self.img_suffix,) if isinstance(self.img_suffix, str) else self.img_suffix
        maps = self.data_prefix.get("seg_map_path")
        data = []
        for name in list_images(folder, suffixes):
            info = dict(
                img_path=str(folder / name),
                label_map=self.label_map,
                reduce_zero_label=self.reduce_zero_label,
                seg_fields=[],
            )
            if maps:
                info["seg_map_path"] = str(Path(maps) / label_map_name(name, self.img_suffix, self.seg_map_suffix))
            data.append(info)
        if not data:
            raise DataError(f"{folder} holds no image", f"file names that count as images end in {list(suffixes)}")
        return data
