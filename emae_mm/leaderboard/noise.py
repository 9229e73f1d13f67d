"""How large a gap must be before it says anything.

The standard error of a row's mean is the larger of

- the spread of its own seeds, s / sqrt(n), where at least two seeds were measured, and
- a floor: the published seed noise of that task, architecture and metric, sigma / sqrt(n), where one is known; else,
  for accuracies with a known number N of evaluated images, the binomial error sqrt(p (1 - p) / N). The latter is the
  sampling error of the evaluation set: a lower bound on the noise, which more seeds do not reduce.

A gap between two rows is marked as noise when it is below twice the standard error of their difference; for two single
runs of equal noise sigma that is 2 sqrt(2) sigma. Where no noise is known for one of the rows and the gap exceeds what
is known of the other, nothing is claimed: the seed noise is unknown.
"""

import math
from dataclasses import dataclass

from emae_mm.leaderboard.metrics import info

SEED_NOISE = {
    ("imagenet-finetune", "ViT-B", "top1"): (0.08, "MAE FINETUNE.md, four seeds"),
    ("imagenet-finetune", "ViT-L", "top1"): (0.07, "MAE FINETUNE.md, four seeds"),
    ("coco-vitdet", "ViT-B", "box_AP"): (0.10, "detectron2 projects/ViTDet README"),
    ("coco-vitdet", "ViT-L", "box_AP"): (0.10, "detectron2 projects/ViTDet README"),
}
"""(task, architecture without patch size, metric) -> (standard deviation of one run in points, source).

Known for the full-size data sets only; see ``FULL_SIZE_DATA``.
"""

FULL_SIZE_DATA = {"imagenet-finetune": "ImageNet-1K", "coco-vitdet": "COCO"}

WITHIN_SEED_NOISE = "within seed noise"
WITHIN_SAMPLING_ERROR = "within sampling error"
UNKNOWN = "seed noise unknown"

_Z = 2.0


@dataclass(frozen=True)
class Noise:
    """Standard error of a row's mean, in the metric's unit, and where it comes from.

    ``mark`` is what a gap below it is called.
    """

    error: float
    mark: str
    source: str


def published_noise(task: str, data: str, arch: str, metric: str, runs: int = 1) -> Noise | None:
    """The known seed noise of the mean of ``runs`` runs, or None where none is known."""
    if FULL_SIZE_DATA.get(task) != data or (task, arch.partition("/")[0], metric) not in SEED_NOISE:
        return None
    sigma, source = SEED_NOISE[task, arch.partition("/")[0], metric]
    return Noise(sigma / math.sqrt(runs), WITHIN_SEED_NOISE, source)


def sampling_noise(metric: str, unit: str, value: float, num_samples: int | None) -> Noise | None:
    """The binomial standard error of an accuracy given in per cent, or None for other metrics or an unknown count.

    An accuracy of exactly 0 or 100 % would have no error at all; it is taken half a sample away from the edge.
    """
    if not info(metric).is_accuracy or unit != "%" or not num_samples:
        return None
    share = min(max(value / 100, 0.5 / num_samples), 1 - 0.5 / num_samples)
    error = 100 * math.sqrt(share * (1 - share) / num_samples)
    return Noise(error, WITHIN_SAMPLING_ERROR, f"sampling of {num_samples} evaluated images")


def larger(*noises: Noise | None) -> Noise | None:
    """The largest of the known noises, or None."""
    known = [noise for noise in noises if noise is not None]
    return max(known, key=lambda noise: noise.error) if known else None


def spread_noise(std: float | None, runs: int) -> Noise | None:
    """The standard error that a row's own seeds show, or None for a single run."""
    if std is None or runs < 2:
        return None
    return Noise(std / math.sqrt(runs), WITHIN_SEED_NOISE, f"spread of {runs} seeds")


def judge_gap(gap: float, first: Noise | None, second: Noise | None) -> str:
    """What to say about a gap >= 0 between two rows: a mark, or an empty string where it is clear of the noise."""
    known = larger(first, second)
    if known is None:
        return UNKNOWN
    error = math.hypot(first.error if first else 0.0, second.error if second else 0.0)
    if gap < _Z * error:
        return known.mark
    return "" if first and second else UNKNOWN
