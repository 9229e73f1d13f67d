"""The operators the stand-in serves, with the signatures of mmcv's compiled extension."""

import functools
import logging

from emae_mm.ops.nms import nms, softnms
from emae_mm.ops.roi_align import roi_align_backward, roi_align_forward

STAND_IN_NOTE = (
    "mmcv has no compiled operators here: nms, soft-nms and RoIAlign are served by torchvision and torch "
    "(same results; see docs/compiled-ops.md)"
)


@functools.cache
def say_once() -> None:
    """Tell the current log that the stand-in is in use, the first time only."""
    from mmengine.logging import print_log

    print_log(STAND_IN_NOTE, logger="current", level=logging.INFO)


def _announced(operator):
    @functools.wraps(operator)
    def announced(*args, **kwargs):
        say_once()
        return operator(*args, **kwargs)

    return announced


def get_compiler_version() -> str:
    """What mmcv reports as its compiler."""
    return "none: emae_mm.ops stands in"


def get_compiling_cuda_version() -> str:
    """What mmcv reports as the CUDA version it was compiled with."""
    return "none: emae_mm.ops stands in"


SERVED = {
    "nms": _announced(nms),
    "softnms": _announced(softnms),
    "roi_align_forward": _announced(roi_align_forward),
    "roi_align_backward": _announced(roi_align_backward),
    "get_compiler_version": get_compiler_version,
    "get_compiling_cuda_version": get_compiling_cuda_version,
}
