"""What a check of a data set found."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class DataReport:
    """The result of checking one data set.

    Attributes:
        kind: ``"imagefolder"``, ``"coco"``, ``"ade20k"``, ``"openimages"``, ``"shards"``, or ``"unchecked"`` for a type
            the checks do not know.
        root: the data set's folder as configured.
        images: number of images.
        annotations: number of object annotations or label maps; None where labels come from folder names.
        classes: the class names in label order; empty without labels.
        shards: number of tar files; None where images are files.
        sampled: number of images that were decoded.
        sizes: how many of those have each (height, width).
        notes: what is wrong but tolerated, one sentence each.
        broken: every broken or missing file with the reason, where the check collects them; otherwise such data has no
            report but is an error.
        split: the config's data loader, as ``"train"``; empty when one data set is checked by itself.
    """

    kind: str
    root: str
    images: int = 0
    annotations: int | None = None
    classes: tuple[str, ...] = ()
    shards: int | None = None
    sampled: int = 0
    sizes: Counter = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    split: str = ""

    def __str__(self) -> str:
        counts = [f"{self.images} images"]
        if self.shards is not None:
            counts.append(f"{self.shards} shards")
        if self.annotations is not None:
            counts.append(f"{self.annotations} {'label maps' if self.kind == 'ade20k' else 'annotations'}")
        if self.classes:
            counts.append(f"{len(self.classes)} classes")
        head = f"{self.split + ': ' if self.split else ''}{self.kind} in {self.root}: {', '.join(counts)}"
        return "\n".join([head, *(f"  note: {note}" for note in self.notes)])

    def size_range(self) -> str:
        """The decoded images' sizes in words; empty if none was decoded."""
        if not self.sizes:
            return ""
        (height, width), _ = self.sizes.most_common(1)[0]
        widths, heights = [w for _, w in self.sizes], [h for h, _ in self.sizes]
        ranges = f"width {min(widths)} to {max(widths)}, height {min(heights)} to {max(heights)}"
        return f"{ranges}, most often {width}x{height}"
