"""How fast accelerators are by their data sheets, and hours from FLOPs."""

from dataclasses import dataclass

from emae_mm.errors import ConfigError

TERA = 1e12

PEAK_TFLOPS = {
    "V100": (125.0, 15.7),
    "A100": (312.0, 19.5),
    "H100": (989.4, 66.9),
    "H200": (989.4, 66.9),
    "B200": (2250.0, 75.0),
    "L40S": (362.1, 91.6),
    "RTX4090": (165.2, 82.6),
    "MI300X": (1307.4, 163.4),
}
"""Dense matrix peak in TFLOP/s from the makers' data sheets: 16-bit with 32-bit sums (V100: float16, it has no
bfloat16), and float32 as torch computes it by default, without TF32. SXM or OAM modules where there are several."""


@dataclass(frozen=True)
class Machine:
    """What a run is to be executed on.

    Attributes:
        gpus: how many, at least 1.
        device: a name in :data:`PEAK_TFLOPS`; unused with ``tflops`` or ``images_per_second``.
        utilisation: share of the peak that the training reaches, in (0, 1]. An assumption.
        tflops: sustained TFLOP/s of one GPU in place of peak times utilisation.
        images_per_second: measured throughput of all GPUs together in place of any FLOPs.

    Raises:
        ConfigError: unknown device or a value out of range.
    """

    gpus: int = 8
    device: str = "A100"
    utilisation: float = 0.35
    tflops: float | None = None
    images_per_second: float | None = None

    def __post_init__(self):
        if self.device not in PEAK_TFLOPS:
            raise ConfigError(
                f"device {self.device!r} is not in the table", f"use one of {', '.join(PEAK_TFLOPS)}, or give --tflops"
            )
        if self.gpus < 1 or not 0 < self.utilisation <= 1:
            raise ConfigError(
                f"gpus={self.gpus}, utilisation={self.utilisation}: out of range",
                "use at least 1 GPU and a utilisation above 0 and at most 1",
            )
        for name, value in (("tflops", self.tflops), ("images-per-second", self.images_per_second)):
            if value is not None and value <= 0:
                raise ConfigError(f"{name}={value} is not above 0", "give a positive rate, or leave it out")

    def hours(self, images: int, flops_per_image: float, half: bool) -> float:
        """Hours to train on so many images.

        Args:
            images: seen in all.
            flops_per_image: forward and backward.
            half: whether the matrices are 16-bit.
        """
        if self.images_per_second:
            return images / self.images_per_second / 3600
        return images * flops_per_image / (self.gpus * self.sustained(half) * TERA) / 3600

    def sustained(self, half: bool) -> float:
        """TFLOP/s one GPU is taken to sustain."""
        return self.tflops or PEAK_TFLOPS[self.device][0 if half else 1] * self.utilisation

    def basis(self, half: bool) -> str:
        """The assumption behind :meth:`hours`, in words."""
        if self.images_per_second:
            return f"{self.images_per_second:g} images/s in all, as given"
        if self.tflops:
            return f"{self.gpus} GPUs at {self.tflops:g} TFLOP/s each, as given"
        kind = "16-bit" if half else "float32"
        peak = PEAK_TFLOPS[self.device][0 if half else 1]
        return f"{self.gpus} x {self.device}, {self.utilisation:.0%} of {peak:g} TFLOP/s ({kind}) assumed"
