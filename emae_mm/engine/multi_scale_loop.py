"""Test of segmentation models on several versions of each image: scales, mirror images."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.runner import TestLoop
from mmengine.runner.amp import autocast
from mmengine.structures import PixelData
from torch import nn

from emae_mm.errors import ConfigError
from emae_mm.registry import LOOPS


def mean_of_versions(model: nn.Module, batch: dict[str, Sequence]) -> list[Any]:
    """Predict each image's versions and decide by the mean of their probabilities.

    The versions are predicted one after the other and summed up: large images with 150 classes would not fit in memory
    twelve times (mmsegmentation's ``SegTTAModel`` keeps them all).

    Args:
        model: a segmentor whose ``test_step`` gives logits at the original size, mirrored back, as mmsegmentation's do.
        batch: from mmcv's ``TestTimeAug``: ``inputs`` and ``data_samples``, each a list of versions of lists of images.

    Returns:
        the first version's samples, with ``pred_sem_seg`` (1, H, W) by all versions and without ``seg_logits``.
    """
    versions = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
    samples = model.test_step(versions[0])
    totals = [sample.seg_logits.data.softmax(dim=0) for sample in samples]
    for version in versions[1:]:
        for total, sample in zip(totals, model.test_step(version), strict=True):
            total += sample.seg_logits.data.softmax(dim=0)
    for sample, total in zip(samples, totals, strict=True):
        del sample.seg_logits
        sample.set_data(dict(pred_sem_seg=PixelData(data=total.argmax(dim=0, keepdim=True))))
    return samples


@LOOPS.register_module()
class MultiScaleTestLoop(TestLoop):
    """mmengine's test loop for a test pipeline that ends in ``TestTimeAug``; see :func:`mean_of_versions`.

    Raises:
        ConfigError: (when run) no checkpoint was loaded: there is nothing to test in untrained heads.
    """

    def run(self) -> dict[str, float]:
        """Test all images; returns the metrics."""
        if not self.runner._has_loaded:
            raise ConfigError(
                "a multi-scale test evaluates a finished run, and no checkpoint of one was loaded",
                "give tools/test.py the config and a checkpoint that training with its single-scale config wrote",
            )
        return super().run()

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: dict) -> None:
        """Predict, score and tell the hooks about one batch."""
        self.runner.call_hook("before_test_iter", batch_idx=idx, data_batch=data_batch)
        with autocast(enabled=self.fp16):
            outputs = mean_of_versions(self.runner.model, data_batch)
        self.evaluator.process(data_samples=outputs, data_batch=data_batch)
        self.runner.call_hook("after_test_iter", batch_idx=idx, data_batch=data_batch, outputs=outputs)
