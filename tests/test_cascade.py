"""The cascade against detectron2's algorithm, written out here in plain torch operations."""

import math

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torchvision.ops import box_iou

from emae_mm.errors import ConfigError
from emae_mm.models.cascade import Detectron2CascadeRoIHead

CLASSES, SIDE, WIDTH = 3, 64, 8
STDS = [(0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (1 / 30, 1 / 30, 1 / 15, 1 / 15)]
IOUS = (0.5, 0.6, 0.7)


def head_config(agnostic: bool = True, with_mask: bool = True) -> ConfigDict:
    def assigner(iou):
        return dict(type="MaxIoUAssigner", pos_iou_thr=iou, neg_iou_thr=iou, min_pos_iou=iou, match_low_quality=False)

    def extractor(size):
        layer = dict(type="RoIAlign", output_size=size, sampling_ratio=0)
        return dict(type="SingleRoIExtractor", roi_layer=layer, out_channels=WIDTH, featmap_strides=[4, 8])

    mask = dict(
        mask_roi_extractor=extractor(14),
        mask_head=dict(
            type="FCNMaskHead", num_convs=1, in_channels=WIDTH, conv_out_channels=WIDTH, num_classes=CLASSES
        ),
    )
    return ConfigDict(
        num_stages=3,
        bbox_roi_extractor=extractor(7),
        bbox_head=[
            dict(
                type="Shared2FCBBoxHead",
                in_channels=WIDTH,
                fc_out_channels=16,
                num_classes=CLASSES,
                bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_means=(0.0,) * 4, target_stds=stds),
                reg_class_agnostic=agnostic,
                loss_bbox=dict(type="L1Loss", loss_weight=1.0),
            )
            for stds in STDS
        ],
        # so many samples that the first stage takes every proposal
        train_cfg=[
            dict(
                assigner=assigner(iou),
                sampler=dict(type="RandomSampler", num=200, pos_fraction=0.5)
                if iou == 0.5
                else dict(type="PseudoSampler"),
                mask_size=28,
                pos_weight=-1,
            )
            for iou in IOUS
        ],
        test_cfg=dict(score_thr=0.0, nms=dict(type="nms", iou_threshold=0.5), max_per_img=5, mask_thr_binary=0.5),
        **(mask if with_mask else {}),
    )


def build(**options) -> Detectron2CascadeRoIHead:
    with DefaultScope.overwrite_default_scope("mmdet"):
        head = Detectron2CascadeRoIHead(**head_config(**options))
        head.init_weights()
    for box_head in head.bbox_head:  # moves and scores that say something
        torch.nn.init.normal_(box_head.fc_reg.weight, std=0.5)
        torch.nn.init.normal_(box_head.fc_cls.weight, std=0.5)
    return head


def random_boxes(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 40
    return torch.cat([corners, corners + 4 + torch.rand(count, 2, generator=generator) * 20], dim=1)


@pytest.fixture
def scene():
    """Feature maps, proposals near the true boxes and elsewhere, and two images' ground truth."""
    # not above: mmdet must not load before emae_mm has put its stand-in for mmcv's operators in place
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    maps = tuple(torch.randn(2, WIDTH, size, size, requires_grad=True) for size in (16, 8))
    proposals, samples = [], []
    for number in range(2):
        truth = random_boxes(3, seed=number)
        near = truth.repeat(6, 1) + torch.randn(18, 4)
        proposals.append(InstanceData(bboxes=torch.cat([near, random_boxes(12, seed=10 + number)]).clamp(0, SIDE)))
        sample = DetDataSample(metainfo=dict(img_shape=(SIDE, SIDE), ori_shape=(SIDE, SIDE), scale_factor=(1.0, 1.0)))
        masks = torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)
        for mask, (left, top, right, bottom) in zip(masks, truth.int().tolist(), strict=True):
            mask[top:bottom, left:right] = 1
        labels = torch.tensor([0, 1, 2])
        sample.gt_instances = InstanceData(bboxes=truth, labels=labels, masks=BitmapMasks(masks.numpy(), SIDE, SIDE))
        sample.ignored_instances = InstanceData(bboxes=truth[:0], labels=labels[:0])
        samples.append(sample)
    return maps, proposals, samples


def centres(boxes):
    return (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]


def offsets(boxes, targets, stds):
    """What moves boxes onto targets, in units of the standard deviations."""
    (centre, size), (goal, goal_size) = centres(boxes), centres(targets)
    return torch.cat([(goal - centre) / size, (goal_size / size).log()], dim=1) / torch.tensor(stds)


def move(boxes, deltas, stds):
    centre, size = centres(boxes)
    deltas = deltas * torch.tensor(stds)
    limit = math.log(1000 / 16)
    goal, goal_size = centre + deltas[:, :2] * size, size * deltas[:, 2:].clamp(-limit, limit).exp()
    return torch.cat([goal - goal_size / 2, goal + goal_size / 2], dim=1).clamp(0, SIDE)


def run_stage(head, stage, maps, boxes):
    """Scores and moves for each image's boxes."""
    rois = torch.cat([F.pad(b, (1, 0), value=number) for number, b in enumerate(boxes)])
    scores, deltas = head.bbox_head[stage](head.bbox_roi_extractor[stage](maps, rois))
    counts = [len(b) for b in boxes]
    return scores.split(counts), deltas.split(counts)


def reference_losses(head, maps, proposals, samples):
    """detectron2's CascadeROIHeads: every box of a stage is labelled, moved and handed on; truth joins at first."""
    truths = [sample.gt_instances for sample in samples]
    boxes = [torch.cat([t.bboxes, p.bboxes]) for t, p in zip(truths, proposals, strict=True)]
    losses = {}
    for stage in range(3):
        scores, deltas = run_stage(head, stage, maps, boxes)
        labels, box_loss = [], 0.0
        for image_boxes, truth, image_deltas in zip(boxes, truths, deltas, strict=True):
            overlap, match = box_iou(image_boxes, truth.bboxes).max(1)
            found = overlap >= IOUS[stage]
            labels.append(truth.labels[match].where(found, torch.tensor(CLASSES)))
            wanted = offsets(image_boxes[found], truth.bboxes[match[found]], STDS[stage])
            box_loss = box_loss + (image_deltas[found] - wanted).abs().sum()
        count = sum(len(b) for b in boxes)
        losses[f"s{stage}.loss_cls"] = F.cross_entropy(torch.cat(scores), torch.cat(labels))
        losses[f"s{stage}.loss_bbox"] = box_loss / count
        moved = [move(b, d.detach(), STDS[stage]) for b, d in zip(boxes, deltas, strict=True)]
        boxes = [b[((b[:, 2:] - b[:, :2]) > 0).all(1)] for b in moved]
    return losses


def test_losses_and_gradients_are_those_of_detectron2(scene):
    maps, proposals, samples = scene
    head = build(with_mask=False)
    ours = head.loss(maps, proposals, samples)
    expected = reference_losses(head, maps, proposals, samples)
    assert {name for name in ours if "loss" in name} == set(expected)
    for name, value in expected.items():
        # sums of some hundred float32 numbers in another order
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}")
    weights = [*head.bbox_head.parameters()]
    total = sum(value for name, value in ours.items() if "loss" in name)
    gradients = torch.autograd.grad(total, [*maps, *weights])
    expected_gradients = torch.autograd.grad(sum(expected.values()), [*maps, *weights])
    for index, (found, wanted) in enumerate(zip(gradients, expected_gradients, strict=True)):
        # whole gradients for the heads, a third for the feature maps
        torch.testing.assert_close(found, wanted / 3 if index < len(maps) else wanted, rtol=1e-3, atol=1e-5)


def test_later_stages_keep_every_box_with_area(scene):
    maps, proposals, samples = scene
    head = build(with_mask=False)
    counts = []
    head.bbox_head[1].register_forward_hook(lambda module, args, output: counts.append(len(args[0])))
    head.loss(maps, proposals, samples)
    assert counts == [2 * (3 + 30)]  # truth and proposals; nothing drawn or added again


def test_one_mask_head_learns_from_the_first_stage(scene):
    maps, proposals, samples = scene
    head = build()
    seen = []
    head.mask_head.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
    losses = head.loss(maps, proposals, samples)
    positives = 0
    for proposal, sample in zip(proposals, samples, strict=True):
        truth = sample.gt_instances.bboxes
        overlap = box_iou(torch.cat([truth, proposal.bboxes]), truth).max(1).values
        positives += int((overlap >= 0.5).sum())
    assert seen == [positives] and positives > 2 * 3
    assert losses["loss_mask"].isfinite() and [name for name in losses if "mask" in name] == ["loss_mask"]


@torch.no_grad()
def test_detections_are_mean_probabilities_at_the_last_boxes(scene):
    maps, proposals, samples = scene
    head = build().eval()
    boxes, probabilities = [p.bboxes for p in proposals], []
    for stage in range(3):
        scores, deltas = run_stage(head, stage, maps, boxes)
        probabilities.append([s.softmax(1) for s in scores])
        boxes = [move(b, d, STDS[stage]) for b, d in zip(boxes, deltas, strict=True)]
    results = head.predict(maps, proposals, samples, rescale=False)
    for number, result in enumerate(results):
        mean = sum(stage[number] for stage in probabilities) / 3
        best = mean[:, :CLASSES].max()
        row, label = divmod(int(mean[:, :CLASSES].argmax()), CLASSES)
        # non-maximum suppression keeps the best of all first
        torch.testing.assert_close(result.scores[0], best)
        torch.testing.assert_close(result.bboxes[0], boxes[number][row], rtol=1e-4, atol=1e-3)
        assert result.labels[0] == label
        assert result.masks.shape == (5, SIDE, SIDE)


@torch.no_grad()
def test_raw_outputs(scene):
    maps, proposals, samples = scene
    scores, deltas, masks = build().eval().forward(maps, proposals, samples)
    assert [s.shape for s in scores] == [(30, CLASSES + 1)] * 2 and [d.shape for d in deltas] == [(30, 4)] * 2
    torch.testing.assert_close(scores[0].exp().sum(1), torch.ones(30))
    assert masks.shape == (60, CLASSES, 28, 28)


@pytest.mark.parametrize("empty", [1, 2])
def test_images_without_objects(empty, scene):
    maps, proposals, samples = scene
    for sample in samples[:empty]:
        sample.gt_instances = sample.gt_instances[:0]
    head = build()
    losses = head.loss(maps, proposals, samples)
    sum(value for name, value in losses.items() if "loss" in name).backward()
    assert all(p.grad is not None for p in head.parameters()), "processes would wait for each other's gradients"
    assert all(value.isfinite().all() for value in losses.values())


def test_boxes_by_class_are_refused():
    with pytest.raises(ConfigError, match="for each class"):
        build(agnostic=False)
