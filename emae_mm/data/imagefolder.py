"""Images in folders: ImageNet's layout with labels, or any tree of images without."""

from pathlib import Path

from mmpretrain.datasets import CustomDataset

from emae_mm.data.classes import classes_of_imagefolder
from emae_mm.data.files import IMAGE_EXTENSIONS, list_images, require_folder
from emae_mm.errors import DataError
from emae_mm.registry import DATASETS


@DATASETS.register_module()
class ImageFolder(CustomDataset):
    """mmpretrain's ``CustomDataset``, with classes from the folder names and clear errors.

    Args:
        data_root: the data set's folder.
        data_prefix: the split's folder below it, as ``"train"``: ``<class>/.../<image>`` with labels, any tree without.
        ann_file: a list of ``path label`` lines (``path`` lines without labels) in place of the folders' structure.
        with_label: give ``gt_label``; False for pre-training on any folder of images.
        metainfo: ``dict(classes=[...])`` renames the classes, in the order of the sorted folder names.
        extensions: file name endings that are images, in either case of letters.
        **kwargs: as for mmengine's ``BaseDataset``.

    Raises:
        DataError: the folder is missing, holds no image, or has another number of classes than ``metainfo``.
    """

    def __init__(
        self,
        data_root: str = "",
        data_prefix: str | dict = "",
        ann_file: str = "",
        with_label: bool = True,
        extensions: tuple[str, ...] = IMAGE_EXTENSIONS,
        **kwargs,
    ):
        if not (data_root or data_prefix):
            raise DataError("ImageFolder has neither data_root nor data_prefix", "give --data-root")
        super().__init__(
            data_root=data_root,
            data_prefix=data_prefix,
            ann_file=ann_file,
            with_label=with_label,
            extensions=extensions,
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """One ``dict(img_path=..., gt_label=...)`` an image (no ``gt_label`` without labels)."""
        require_folder(self.data_root or self.img_prefix, "data root")
        require_folder(self.img_prefix, "folder of images")
        if self.ann_file and not Path(self.ann_file).is_file():
            raise DataError(f"the annotation file {self.ann_file} does not exist", "check data_root and ann_file")
        return super().load_data_list()

    def _find_samples(self) -> list:
        """The hook for data without an annotation file: ``(relative path, label)`` pairs, or paths without labels."""
        images = list_images(self.img_prefix, self.extensions)
        if not self.with_label:
            samples = images
        else:
            folders = classes_of_imagefolder(self.img_prefix)
            if self.CLASSES is None:
                self._metainfo["classes"] = folders
            elif len(self.CLASSES) != len(folders):
                raise DataError(
                    f"{self.img_prefix} has {len(folders)} class folders, but {len(self.CLASSES)} classes are named",
                    "leave out the names to take those of the folders",
                )
            label = {name: index for index, name in enumerate(folders)}
            self.folder_to_idx = label
            samples = [(path, label[path.split("/", 1)[0]]) for path in images if "/" in path]
        if not samples:
            raise DataError(
                f"{self.img_prefix} holds no image", f"file names that count as images end in {list(self.extensions)}"
            )
        return samples
