"""What a check of a data set found."""

from dataclasses import dataclass, field


@dataclass
class DataReport:
    """The result of checking one data set; it only exists for data that can be used.

    Attributes:
        kind: ``"imagefolder"``, ``"coco"``, ``"ade20k"``, or ``"unchecked"`` for a type the checks do not know.
        root: the data set's folder as configured.
        images: number of images.
        annotations: number of object annotations or label maps; None where labels come from folder names.
        classes: the class names in label order; empty without labels.
        sampled: number of images that were decoded.
        notes: what is wrong but tolerated, one sentence each.
        split: the config's data loader, as ``"train"``; empty when one data set is checked by itself.
    """

    kind: str
    root: str
    images: int = 0
    annotations: int | None = None
    classes: tuple[str, ...] = ()
    sampled: int = 0
    notes: list[str] = field(default_factory=list)
    split: str = ""

    def __str__(self) -> str:
        counts = [f"{self.images} images"]
        if self.annotations is not None:
            counts.append(f"{self.annotations} {'label maps' if self.kind == 'ade20k' else 'annotations'}")
        if self.classes:
            counts.append(f"{len(self.classes)} classes")
        head = f"{self.split + ': ' if self.split else ''}{self.kind} in {self.root}: {', '.join(counts)}"
        return "\n".join([head, *(f"  note: {note}" for note in self.notes)])
