"""Cascade Mask R-CNN as detectron2 trains and tests it.

mmdet's models load with this module, so the registry does not list it: a config that wants the head says
``custom_imports = dict(imports=["emae_mm.registry", "emae_mm.models.cascade"], ...)``.
"""

import torch
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.models.task_modules.samplers import SamplingResult
from mmdet.models.utils import unpack_gt_instances
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData
from torch import Tensor

from emae_mm.errors import ConfigError
from emae_mm.registry import MODELS


@MODELS.register_module()
class Detectron2CascadeRoIHead(CascadeRoIHead):
    """mmdet's ``CascadeRoIHead`` where detectron2's differs from it.

    - One mask head (mmdet: one for each stage), trained on the positive proposals of the first stage.
    - Later stages take all refined boxes of the stage before them, those of the ground truth included, and label them
      anew; mmdet drops and adds the ground truth and draws 512 boxes at every stage. Refined boxes without area are
      left out.
    - Losses of all stages count fully, but the gradient that reaches the feature maps is divided by the number of
      stages. mmdet weights the losses instead, by 1, 1/2 and 1/4.
    - The score of a box is the mean of the stages' probabilities (mmdet: the softmax of the mean logits).

    Args:
        num_stages: box heads, one after the other.
        bbox_roi_extractor, bbox_head: one config for all stages or a list of one for each; boxes regressed by class
            have no place in detectron2's cascade.
        mask_roi_extractor, mask_head: the one mask head, as for ``StandardRoIHead``.
        train_cfg: a list, one for each stage, as for mmdet's; the later stages' ``sampler`` is ``PseudoSampler``, which
            takes every box, and the first stage's ``mask_size`` is the one that counts.
        test_cfg: as for ``StandardRoIHead``.

    Raises:
        ConfigError: a box head that regresses by class.
    """

    def __init__(self, num_stages: int, **kwargs):
        super().__init__(num_stages, stage_loss_weights=[1.0] * num_stages, **kwargs)
        if not all(head.reg_class_agnostic for head in self.bbox_head):
            raise ConfigError(
                "the cascade's box heads regress a box for each class", "set reg_class_agnostic=True in every bbox_head"
            )

    # the mask branch is that of a detector without stages
    init_mask_head = StandardRoIHead.init_mask_head
    predict_mask = StandardRoIHead.predict_mask
    _mask_forward = StandardRoIHead._mask_forward

    def _bbox_forward(self, stage: int, x: tuple[Tensor, ...], rois: Tensor) -> dict[str, Tensor]:
        extractor = self.bbox_roi_extractor[stage]
        features = extractor(x[: extractor.num_inputs], rois)
        if features.requires_grad:
            features.register_hook(lambda gradient: gradient / self.num_stages)
        scores, deltas = self.bbox_head[stage](features)
        return dict(cls_score=scores, bbox_pred=deltas, bbox_feats=features)

    def _sample(self, stage: int, boxes: list[Tensor], instances: tuple) -> list[SamplingResult]:
        """Label every image's boxes (n, 4), and at the first stage draw from them."""
        results = []
        for image_boxes, truth, ignored in zip(boxes, *instances, strict=True):
            proposals = InstanceData(priors=image_boxes)
            assigned = self.bbox_assigner[stage].assign(proposals, truth, ignored)
            results.append(self.bbox_sampler[stage].sample(assigned, proposals, truth))
        return results

    def _moved(self, stage: int, rois: Tensor, deltas: Tensor, img_metas: list[dict]) -> Tensor:
        """All boxes (n, 5), image number first, as a stage moves them, clipped to their images; the order is kept."""
        boxes = self.bbox_head[stage].bbox_coder.decode(rois[:, 1:], deltas.float())
        shapes = rois.new_tensor([meta["img_shape"][:2] for meta in img_metas])[rois[:, 0].long()]
        return torch.cat([rois[:, :1], boxes.clamp(min=0).minimum(shapes.flip(1).repeat(1, 2))], dim=1)

    @torch.no_grad()
    def _refine(self, stage: int, results: dict, img_metas: list[dict]) -> list[Tensor]:
        """Every image's boxes (n, 4) for the next stage; those without area are left out."""
        rois = self._moved(stage, results["rois"], results["bbox_pred"], img_metas)
        rois = rois[(rois[:, 3:] > rois[:, 1:3]).all(1)]
        return [rois[rois[:, 0] == number, 1:] for number in range(len(img_metas))]

    def loss(self, x: tuple[Tensor, ...], rpn_results_list: list[InstanceData], batch_data_samples: SampleList) -> dict:
        """Losses of all stages, ``s{stage}.loss_cls`` and ``s{stage}.loss_bbox``, and ``loss_mask``.

        Args:
            x: feature maps (B, C, h, w).
            rpn_results_list: every image's proposals, ``bboxes`` (n, 4) in pixels of the input.
            batch_data_samples: the images' ground truth.
        """
        truth, ignored, img_metas = unpack_gt_instances(batch_data_samples)
        boxes, losses = [results.bboxes for results in rpn_results_list], {}
        for stage in range(self.num_stages):
            samples = self._sample(stage, boxes, (truth, ignored))
            results = self.bbox_loss(stage, x, samples)
            losses.update({f"s{stage}.{name}": value for name, value in results["loss_bbox"].items()})
            if stage == 0 and self.with_mask:
                losses.update(self._mask_loss(x, samples, truth))
            if stage < self.num_stages - 1:
                boxes = self._refine(stage, results, img_metas)
        return losses

    def _mask_loss(self, x: tuple[Tensor, ...], samples: list[SamplingResult], truth: list[InstanceData]) -> dict:
        predictions = self._mask_forward(x, bbox2roi([sample.pos_priors for sample in samples]))["mask_preds"]
        return self.mask_head.loss_and_target(predictions, samples, truth, self.train_cfg[0])["loss_mask"]

    def _refine_roi(
        self, x: tuple[Tensor, ...], rois: Tensor, batch_img_metas: list[dict], num_proposals_per_img: tuple[int, ...]
    ) -> tuple:
        """Boxes before the last stage's move, logarithms of mean probabilities and that stage's moves, by image."""
        log_probabilities = []
        for stage in range(self.num_stages):
            results = self._bbox_forward(stage, x, rois)
            log_probabilities.append(results["cls_score"].float().log_softmax(-1))
            deltas = results["bbox_pred"]
            if stage < self.num_stages - 1:
                rois = self._moved(stage, rois, deltas, batch_img_metas)
        # the softmax that mmdet applies next gives back the mean itself
        scores = torch.stack(log_probabilities).exp().mean(0).log()
        return tuple(values.split(num_proposals_per_img, 0) for values in (rois, scores, deltas))

    def forward(
        self, x: tuple[Tensor, ...], rpn_results_list: list[InstanceData], batch_data_samples: SampleList
    ) -> tuple:
        """Raw outputs: scores and moves of the last stage by image, and masks (n, classes, h, w) of all its boxes."""
        boxes = [results.bboxes for results in rpn_results_list]
        img_metas = [sample.metainfo for sample in batch_data_samples]
        rois, scores, deltas = self._refine_roi(x, bbox2roi(boxes), img_metas, tuple(len(b) for b in boxes))
        return scores, deltas, self._mask_forward(x, torch.cat(rois))["mask_preds"]
