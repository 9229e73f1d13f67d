"""Non-maximum suppression with mmcv's order of tied scores, mmcv's threshold arithmetic and mmcv's ``offset``."""

import torch
import torchvision
from torch import Tensor

NAIVE, LINEAR, GAUSSIAN = 0, 1, 2


def _single(value: float) -> float:
    """``value`` rounded to float32, as mmcv's float arguments are.

    Whether an IoU of exactly 0.3 exceeds the threshold 0.3 depends on it.
    """
    return torch.tensor(value, dtype=torch.float32).item()


def _corners(boxes: Tensor) -> Tensor:
    """Boxes in a precision the kernels compute in: half precision becomes float32."""
    return boxes.float() if boxes.dtype in (torch.float16, torch.bfloat16) else boxes


def _areas(boxes: Tensor, offset: int) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0] + offset) * (boxes[:, 3] - boxes[:, 1] + offset)


def _iou_with(box: Tensor, area: Tensor, boxes: Tensor, areas: Tensor, offset: int) -> Tensor:
    """Intersection over union of one box (4,) with many (N, 4), rounded step by step as in mmcv: (N,)."""
    width = torch.minimum(box[2], boxes[:, 2]) - torch.maximum(box[0], boxes[:, 0]) + offset
    height = torch.minimum(box[3], boxes[:, 3]) - torch.maximum(box[1], boxes[:, 1]) + offset
    intersection = width.clamp(min=0) * height.clamp(min=0)
    return intersection / (area + areas - intersection)


def _keep_with_offset(boxes: Tensor, threshold: float, offset: int) -> Tensor:
    """Greedy suppression of sorted boxes (N, 4) with sides ``x2 - x1 + offset``: (N,) bool, True = kept.

    torchvision has no offset. The loop runs on the CPU, where asking for one flag does not wait for a GPU.
    """
    boxes = boxes.cpu()
    areas = _areas(boxes, offset)
    keep = torch.ones(len(boxes), dtype=torch.bool)
    for i in range(len(boxes)):
        if keep[i]:
            rest = slice(i + 1, None)
            keep[rest] &= ~(_iou_with(boxes[i], areas[i], boxes[rest], areas[rest], offset) > threshold)
    return keep


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes that survive greedy suppression, best first.

    mmcv visits boxes in the order of a *not stable* descending sort of the scores; torchvision sorts stably, and which
    of two tied boxes is visited first decides which survives. Sorting here in mmcv's way, and handing torchvision
    ranks in place of scores, keeps mmcv's order.

    Args:
        boxes: (N, 4) corners, any floating type, on the CPU or a GPU.
        scores: (N,).
        iou_threshold: a box is dropped where its IoU with a better kept box is larger than this.
        offset: 0, or 1 where corners are inclusive pixel indices.

    Returns:
        (M,) int64 on the device of ``boxes``.
    """
    order = scores.sort(0, descending=True)[1]
    sorted_boxes = _corners(boxes)[order]
    if offset != 0:
        return order[_keep_with_offset(sorted_boxes, _single(iou_threshold), offset).to(order.device)]
    # falling and distinct; float32 counts exactly up to 2**24 boxes
    ranks = torch.arange(len(order), 0, -1, dtype=sorted_boxes.dtype, device=order.device)
    return order[torchvision.ops.nms(sorted_boxes, ranks, _single(iou_threshold))]


def _decay(iou: Tensor, method: int, threshold: float, sigma: float) -> Tensor:
    """The factor by which soft-nms lowers a score, for each IoU (N,)."""
    if method == GAUSSIAN:
        return torch.exp(-(iou * iou) / sigma)
    lowered = torch.zeros_like(iou) if method == NAIVE else 1 - iou
    return torch.where(iou >= threshold, lowered, torch.ones_like(iou))


def _fill_holes(kept: Tensor) -> Tensor:
    """Where the elements of an array come from after mmcv's removals: (N,) bool -> (M,) int64, M = kept.sum().

    mmcv overwrites each dropped element with the last one still there. So the holes among the first M places are
    filled, from the front, with the kept elements behind them, from the back.
    """
    count = int(kept.sum())
    sources = torch.arange(count)
    holes = ~kept[:count]
    behind = kept[count:].nonzero().flatten() + count
    sources[holes] = behind.flip(0)
    return sources


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft suppression: overlapping boxes keep a lowered score, and are dropped below ``min_score``.

    Args:
        boxes: (N, 4) float32 on the CPU, where mmcv too computes it.
        scores: (N,) float32.
        dets: (N, 5), written in place: the surviving boxes and their new scores, best first.
        iou_threshold: overlap from which ``method`` 0 and 1 lower a score.
        sigma: width of ``method`` 2.
        min_score: scores below it are dropped.
        method: 0 drops, 1 multiplies by ``1 - IoU``, 2 by ``exp(-IoU**2 / sigma)``.
        offset: 0, or 1 where corners are inclusive pixel indices.

    Returns:
        (M,) int64: the indices of the surviving boxes, in the order of ``dets``.
    """
    threshold, sigma, min_score = _single(iou_threshold), _single(sigma), _single(min_score)
    table = torch.cat([boxes, scores[:, None], _areas(boxes, offset)[:, None]], dim=1)
    indices = torch.arange(len(boxes))
    i = 0
    while i < len(table):
        best = i + int(table[i:, 4].argmax())  # the first of equals, as in mmcv
        swap = torch.tensor([best, i])
        table[[i, best]] = table[swap]
        indices[[i, best]] = indices[swap]
        rest = table[i + 1 :]
        iou = _iou_with(table[i, :4], table[i, 5], rest[:, :4], rest[:, 5], offset)
        rest[:, 4] *= _decay(iou, method, threshold, sigma)
        sources = _fill_holes(rest[:, 4] >= min_score)
        table = torch.cat([table[: i + 1], rest[sources]])
        indices = torch.cat([indices[: i + 1], indices[i + 1 :][sources]])
        i += 1
    dets[: len(table)] = table[:, :5]
    return indices
