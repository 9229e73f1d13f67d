"""The stand-in for mmcv's compiled extension, against numbers of the compiled extension and against plain loops."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from emae_mm.errors import UserError
from emae_mm.ops import MissingOperatorError, install_fallback, operators_in_use

if not install_fallback():
    pytest.skip("mmcv's compiled extension is installed: there is nothing to stand in for", allow_module_level=True)

from mmcv import ops as mmcv_ops

from emae_mm.ops import nms as nms_module
from emae_mm.ops import served


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    """Inputs and outputs of mmcv's compiled operators (mmcv 2.3.6, CPU)."""
    with np.load(Path(__file__).parent / "data" / "mmcv_ops.npz", allow_pickle=False) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def random_boxes(count: int, generator: torch.Generator, whole: bool = False) -> torch.Tensor:
    corners = torch.rand(count, 2, generator=generator) * 80
    sides = 1 + torch.rand(count, 2, generator=generator) * 40
    boxes = torch.cat([corners, corners + sides], dim=1)
    return boxes.round() if whole else boxes


def greedy(boxes, order, threshold, offset):
    """mmcv's CPU algorithm in numpy float32, pair by pair."""
    b, offset, threshold = boxes.numpy(), np.float32(offset), np.float32(threshold)
    area = (b[:, 2] - b[:, 0] + offset) * (b[:, 3] - b[:, 1] + offset)
    kept = []
    for j in order.tolist():
        suppressed = False
        for i in kept:
            w = max(np.float32(0), min(b[i, 2], b[j, 2]) - max(b[i, 0], b[j, 0]) + offset)
            h = max(np.float32(0), min(b[i, 3], b[j, 3]) - max(b[i, 1], b[j, 1]) + offset)
            if w * h / (area[i] + area[j] - w * h) > threshold:
                suppressed = True
                break
        if not suppressed:
            kept.append(j)
    return torch.tensor(kept)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_nms_and_batched_nms_equal_the_compiled_operators(golden, threshold):
    boxes, scores = golden["nms_boxes"], golden["nms_scores"]
    dets, keep = mmcv_ops.nms(boxes, scores, threshold)
    assert torch.equal(keep, golden[f"nms_keep_{threshold}"])
    assert torch.equal(dets, golden[f"nms_dets_{threshold}"])
    config = dict(type="nms", iou_threshold=threshold)
    dets, keep = mmcv_ops.batched_nms(boxes, scores, golden["nms_labels"], config)
    assert torch.equal(keep, golden[f"bnms_keep_{threshold}"])
    assert torch.equal(dets, golden[f"bnms_dets_{threshold}"])


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("whole", [False, True])
def test_nms_visits_tied_scores_in_the_order_of_mmcvs_sort(offset, whole):
    generator = torch.Generator().manual_seed(3)
    boxes = random_boxes(150, generator, whole)
    scores = (torch.rand(150, generator=generator) * 8).round() / 8
    order = scores.sort(0, descending=True)[1]
    for threshold in (0.2, 0.5):
        keep = mmcv_ops.nms(boxes, scores, threshold, offset=offset)[1]
        assert torch.equal(keep, greedy(boxes, order, threshold, offset))
    stable = scores.sort(dim=0, descending=True, stable=True)[1]
    assert not torch.equal(order, stable), "the case must tell the two orders apart"


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.7])
def test_an_overlap_of_exactly_the_threshold_is_kept(offset, threshold):
    # in float32, as in mmcv: 3/10 is not larger than 0.3, though float32(0.3) is larger than the double 0.3
    long = 10.0 - offset
    boxes = torch.tensor([[0.0, 0.0, long, 10.0 - offset], [0.0, 0.0, threshold * 10 - offset, 10.0 - offset]])
    assert mmcv_ops.nms(boxes, torch.tensor([0.9, 0.8]), threshold, offset=offset)[1].tolist() == [0, 1]
    assert mmcv_ops.nms(boxes, torch.tensor([0.9, 0.8]), threshold - 0.01, offset=offset)[1].tolist() == [0]


def test_offset_counts_corners_as_inclusive_pixels():
    # sides 4 and 2: IoU 2/4 = 0.5 without offset, (3*5)/(5*5) = 0.6 with it
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 2.0, 4.0]])
    scores = torch.tensor([0.9, 0.8])
    assert mmcv_ops.nms(boxes, scores, 0.55, offset=0)[1].tolist() == [0, 1]
    assert mmcv_ops.nms(boxes, scores, 0.55, offset=1)[1].tolist() == [0]


@pytest.mark.parametrize("offset", [0, 1])
def test_nms_of_no_boxes_and_of_half_precision(offset):
    assert mmcv_ops.nms(torch.zeros(0, 4), torch.zeros(0), 0.5, offset=offset)[1].tolist() == []
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]], dtype=torch.bfloat16)
    scores = torch.tensor([0.1, 0.9, 0.5], dtype=torch.bfloat16)
    assert mmcv_ops.nms(boxes, scores, 0.5, offset=offset)[1].tolist() == [1, 2]


@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
def test_soft_nms_equals_the_compiled_operator(golden, method):
    dets, keep = mmcv_ops.soft_nms(golden["nms_boxes"], golden["nms_scores"], iou_threshold=0.3, method=method)
    assert torch.equal(keep, golden[f"soft_{method}_keep"])
    # torch's vectorised exp and the C library's may differ in the last bit; the other methods have no exp
    tolerance = 2e-7 if method == "gaussian" else 0.0
    torch.testing.assert_close(dets, golden[f"soft_{method}_dets"], rtol=0, atol=tolerance)


def soft_nms_loop(boxes, scores, threshold, min_score):
    """The array with removals by swapping, element by element (linear method)."""
    rows = [[*box, score, index] for index, (box, score) in enumerate(zip(boxes.numpy(), scores.numpy(), strict=True))]
    i = 0
    while i < len(rows):
        best = max(range(i, len(rows)), key=lambda k: (rows[k][4], -k))
        rows[i], rows[best] = rows[best], rows[i]
        k = i + 1
        while k < len(rows):
            a, b = rows[i], rows[k]
            w = max(np.float32(0), min(a[2], b[2]) - max(a[0], b[0]))
            h = max(np.float32(0), min(a[3], b[3]) - max(a[1], b[1]))
            areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
            iou = w * h / (areas - w * h)
            if iou >= np.float32(threshold):
                b[4] = b[4] * (np.float32(1) - iou)
            if b[4] < np.float32(min_score):
                rows[k] = rows[-1]
                rows.pop()
            else:
                k += 1
        i += 1
    return torch.tensor([row[5] for row in rows])


def test_soft_nms_removes_by_swapping_as_mmcv_does_which_decides_between_ties():
    generator = torch.Generator().manual_seed(5)
    boxes = random_boxes(120, generator)
    scores = (torch.rand(120, generator=generator) * 4).round() / 4
    keep = mmcv_ops.soft_nms(boxes, scores, iou_threshold=0.1, min_score=0.3, method="linear")[1]
    assert 10 < len(keep) < 110
    assert torch.equal(keep, soft_nms_loop(boxes, scores, 0.1, 0.3))


@pytest.mark.parametrize("aligned, ratio", [(True, 0), (True, 2), (False, 0)])
@pytest.mark.parametrize("mode", ["avg", "max"])
def test_roi_align_equals_the_compiled_operator(golden, aligned, ratio, mode):
    features = golden["feat"].clone().requires_grad_()
    pooled = mmcv_ops.RoIAlign((7, 5), 0.125, ratio, mode, aligned)(features, golden["rois"])
    pooled.backward(torch.linspace(-1, 1, pooled.numel()).view_as(pooled))
    # average pooling is the same arithmetic; for the maximum, samples are placed by other float32 roundings
    tolerance = 0.0 if mode == "avg" else 2e-5
    torch.testing.assert_close(pooled.detach(), golden[f"roi_{aligned}_{ratio}_{mode}"], rtol=0, atol=tolerance)
    torch.testing.assert_close(features.grad, golden[f"roigrad_{aligned}_{ratio}_{mode}"], rtol=0, atol=tolerance)


def bilinear(plane, y, x):
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    v, u = y - top, x - left
    upper = plane[top, left] * (1 - u) + plane[top, right] * u
    lower = plane[bottom, left] * (1 - u) + plane[bottom, right] * u
    return upper * (1 - v) + lower * v


def roi_align_loop(features, rois, size, scale, ratio, mode, aligned):
    """RoIAlign by its definition in float64: bins of regular samples, bilinear values, their mean or maximum."""
    out = np.zeros((len(rois), features.shape[1], *size))
    shift = 0.5 if aligned else 0.0
    for r, (image, *corners) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (c * scale - shift for c in corners)
        height, width = (y2 - y1, x2 - x1) if aligned else (max(y2 - y1, 1.0), max(x2 - x1, 1.0))
        gh, gw = (ratio or math.ceil(height / size[0])), (ratio or math.ceil(width / size[1]))
        for c, i, j in np.ndindex(features.shape[1], *size):
            plane = features[int(image), c].numpy()
            ys = [y1 + (i + (a + 0.5) / gh) * height / size[0] for a in range(gh)]
            xs = [x1 + (j + (b + 0.5) / gw) * width / size[1] for b in range(gw)]
            values = [bilinear(plane, y, x) for y in ys for x in xs]
            out[r, c, i, j] = np.mean(values) if mode == "avg" else np.max(values)
    return torch.from_numpy(out)


ROIS = [[0, 3.1, 2.2, 25.7, 17.3], [1, -6.0, 4.0, 9.9, 40.0], [1, 10.3, 10.1, 11.2, 12.9], [0, 0.0, 0.0, 31.0, 23.0]]


@pytest.mark.parametrize("aligned, ratio", [(True, 0), (True, 3), (False, 0), (False, 1)])
@pytest.mark.parametrize("mode", ["avg", "max"])
def test_roi_align_follows_its_definition_in_double_precision(aligned, ratio, mode):
    features = torch.randn(2, 2, 6, 8, dtype=torch.float64)
    rois = torch.tensor(ROIS, dtype=torch.float64)
    pooled = mmcv_ops.RoIAlign((3, 2), 0.25, ratio, mode, aligned)(features, rois)
    expected = roi_align_loop(features, rois, (3, 2), 0.25, ratio, mode, aligned)
    torch.testing.assert_close(pooled, expected, rtol=0, atol=1e-12)  # double precision, sums of a few terms


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_aligns_gradient_is_that_of_finite_differences(mode, ratio):
    features = torch.randn(2, 2, 6, 8, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor(ROIS, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda f: mmcv_ops.roi_align(f, rois, (3, 2), 0.25, ratio, mode, True), features)


@pytest.mark.parametrize("mode, value", [("avg", 0.0), ("max", -10000.0)])
def test_a_region_without_area_gives_mmcvs_value_and_no_gradient(mode, value):
    features = torch.randn(1, 1, 4, 4, requires_grad=True)
    pooled = mmcv_ops.roi_align(features, torch.tensor([[0.0, 2, 2, 2, 2]]), (2, 2), 1.0, 0, mode, True)
    assert (pooled == value).all()
    pooled.sum().backward()
    assert (features.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mode", ["avg", "max"])
def test_roi_align_runs_in_half_precision_and_without_regions(dtype, mode):
    features = torch.randn(1, 3, 8, 8).to(dtype).requires_grad_()
    rois = torch.tensor([[0.0, 1, 1, 6, 6]])
    pooled = mmcv_ops.roi_align(features, rois.to(dtype), (2, 2), 1.0, 2, mode, True)
    pooled.float().sum().backward()
    expected = mmcv_ops.roi_align(features.detach().float(), rois, (2, 2), 1.0, 2, mode, True)
    # eps of bfloat16 is 8e-3; coordinates of this region are exact in both types
    torch.testing.assert_close(pooled.float(), expected, rtol=2e-2, atol=2e-2)
    assert features.grad.isfinite().all() and features.grad.any()
    assert mmcv_ops.roi_align(features, rois[:0].to(dtype), (2, 2), 1.0, 2, mode, True).shape == (0, 3, 2, 2)


def test_an_operator_that_is_not_served_names_itself_and_the_way_out():
    weight = torch.zeros(1, 1, 3, 3)
    with pytest.raises(MissingOperatorError, match="deform_conv_forward") as caught:
        mmcv_ops.deform_conv2d(torch.zeros(1, 1, 4, 4), torch.zeros(1, 18, 2, 2), weight)
    assert "docs/compiled-ops.md" in str(caught.value)
    assert isinstance(caught.value, UserError)
    extension = sys.modules["mmcv._ext"]
    assert hasattr(extension, "nms_rotated") and not hasattr(extension, "__path__")


def test_the_log_names_the_stand_in_once(monkeypatch):
    lines = []
    monkeypatch.setattr("mmengine.logging.print_log", lambda text, **kwargs: lines.append(text))
    served.say_once.cache_clear()
    for _ in range(3):
        mmcv_ops.nms(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([1.0]), 0.5)
    assert lines == [served.STAND_IN_NOTE]


def test_installing_twice_changes_nothing_and_a_compiled_extension_is_left_alone(monkeypatch, tmp_path):
    before = sys.modules["mmcv._ext"]
    assert install_fallback() and sys.modules["mmcv._ext"] is before
    assert operators_in_use() == "stand-in"
    package = tmp_path / "mmcv"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "mmcv"]:
        monkeypatch.delitem(sys.modules, name)
    assert operators_in_use() == "none"
    (package / "_ext.py").write_text("")
    sys.path_importer_cache.clear()
    assert operators_in_use() == "compiled"
    assert not install_fallback() and "mmcv._ext" not in sys.modules


BUILD = """
import sys
import emae_mm.registry
assert "mmcv" not in sys.modules and "torchvision" not in sys.modules, "importing the registry must stay cheap"
import mmdet.models
from mmengine import Config
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
register_all_modules()
from importlib.metadata import distribution
path = next(f for f in distribution("onedl-mmdetection").files if f.name == "mask-rcnn_r50_fpn.py").locate()
config = Config.fromfile(path).model
config.backbone.init_cfg = None
print(type(MODELS.build(config)).__name__)
"""


def test_mmdet_imports_and_builds_mask_rcnn_in_a_fresh_process():
    done = subprocess.run([sys.executable, "-c", BUILD], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().splitlines()[-1] == "MaskRCNN"


def test_fill_holes_moves_the_last_kept_element_into_each_hole():
    kept = torch.tensor([True, False, True, False, False, True, True, False])
    # by hand: hole 1 takes the last kept (6), hole 3 the one before it (5)
    assert nms_module._fill_holes(kept).tolist() == [0, 6, 2, 5]
