"""Pictures: what is drawn is what was measured. Plain functions, no runs (test_pictures_runs.py has those)."""

import contextlib
import dataclasses
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sklearn.metrics import confusion_matrix, jaccard_score
from timm.models.vision_transformer import Attention
from torch import nn

from emae_mm.engine.shown import readable, true_instances
from emae_mm.errors import ConfigError
from emae_mm.models.attention import GridAttention
from emae_mm.models.dense import DenseViT
from emae_mm.models.vit import ViTEncoder, ViTForClassification
from emae_mm.pictures import attention, confusion, curves, detections, segmentation
from emae_mm.pictures.detections import DetectionSample, Instances
from emae_mm.pictures.segmentation import SegmentationSample

SMALL = dict(arch=dict(embed_dim=32, depth=3, num_heads=4), img_size=(24, 40), patch_size=8)
PALETTE = [(255, 0, 0), (0, 128, 0), (10, 20, 30), (200, 100, 0)]


@pytest.fixture
def figure_of(monkeypatch):
    """Calls a drawing function and gives the figure in place of the file."""

    def call(module, draw, *args, **kwargs):
        kept = []
        monkeypatch.setattr(module, "save", lambda figure, path: kept.append(figure))
        draw(*args, path="unused.png", **kwargs)
        (figure,) = kept
        return figure

    return call


def caption_of(figure) -> str:
    return " ".join(figure.get_supxlabel().split())


def randomise(module: nn.Module) -> nn.Module:
    """Nothing is zero or one any more, so that nothing can be left out unseen."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.eval()


# ---------------------------------------------------------------- confusion


def test_confusion_is_scikit_learns():
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 7, (3, 50, 40)), rng.integers(0, 6, (3, 50, 40))
    ignored = rng.random(truth.shape) < 0.2
    expected = confusion_matrix(truth[~ignored], predicted[~ignored], labels=range(7))
    assert np.array_equal(confusion.count_confusion(np.where(ignored, 255, truth), predicted, 7), expected)
    as_bytes = np.where(ignored, 255, truth).astype(np.uint8)  # label maps are; cells would overflow
    assert np.array_equal(confusion.count_confusion(as_bytes, predicted.astype(np.uint8), 7), expected)


def test_iou_is_scikit_learns_jaccard_score():
    truth, predicted = torch.randint(0, 5, (2, 400)).numpy()
    found = confusion.class_iou(confusion.count_confusion(truth, predicted, 6))
    np.testing.assert_allclose(found[:5], jaccard_score(truth, predicted, average=None, labels=range(5)))
    assert np.isnan(found[5])


def test_most_confused_pairs_come_first_and_hits_do_not_count():
    counts = np.array([[90, 3, 7], [0, 0, 0], [9, 1, 2]])
    assert confusion.confused_pairs(counts) == [(2, 0, 9), (0, 2, 7), (0, 1, 3), (2, 1, 1)]
    assert confusion.confused_pairs(counts, 2) == [(2, 0, 9), (0, 2, 7)]
    assert confusion.confused_pairs(np.eye(3, dtype=np.int64)) == []


def test_drawn_confusion_is_in_per_cent_of_the_true_class(figure_of):
    counts = np.array([[3, 1], [0, 0]])
    axis = figure_of(confusion, confusion.draw_confusion, counts, ["cat", "dog"], caption="Data: pets.").axes[0]
    assert [text.get_text() for text in axis.texts] == ["75", "25"]  # no dog: no number, and no division by zero
    assert [label.get_text() for label in axis.get_yticklabels()] == ["cat", "dog"]
    bars = figure_of(confusion, confusion.draw_confused_pairs, counts, ["cat", "dog"], caption="Data: pets.")
    assert [bar.get_width() for bar in bars.axes[0].patches] == [25]
    assert caption_of(bars) == "The most frequent confusions, true class → predicted class. Data: pets."


# ---------------------------------------------------------------- segmentation


def test_overlay_has_the_palettes_colours_where_the_classes_are():
    image = torch.randint(0, 256, (6, 8, 3)).numpy().astype(np.uint8)
    labels = torch.randint(0, 4, (6, 8)).numpy().astype(np.uint8)
    labels[0, :3] = 255
    solid = segmentation.overlay(image, labels, PALETTE, opacity=1.0)
    known = labels != 255
    assert np.array_equal(solid[known], np.array(PALETTE)[labels[known]])
    assert np.array_equal(solid[~known], image[~known])
    half = segmentation.overlay(image, labels, PALETTE, opacity=0.5).astype(float)
    # 1: torchvision cuts fractions off
    np.testing.assert_allclose(half[known], (image[known] + np.array(PALETTE)[labels[known]]) / 2, atol=1)


def test_legend_names_the_classes_that_occur_in_their_colours(figure_of):
    truth, predicted = np.full((8, 8), 3), np.full((8, 8), 3)
    truth[:4], predicted[:2], truth[7] = 1, 0, 255
    sample = SegmentationSample(np.zeros((8, 8, 3), np.uint8), truth, predicted)
    figure = figure_of(
        segmentation, segmentation.draw_segmentation, [sample], ["wall", "sky", "tree", "sea"], PALETTE, caption="x"
    )
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["wall", "sky", "sea"]
    colours = [tuple(np.round(255 * np.array(patch.get_facecolor()[:3])).astype(int)) for patch in legend.get_patches()]
    assert colours == [PALETTE[0], PALETTE[1], PALETTE[3]]
    assert "no label" in caption_of(figure)
    shown = [axis.images[0].get_array() for axis in figure.axes]
    assert np.array_equal(shown[1], segmentation.overlay(sample.image, truth, PALETTE))
    assert np.array_equal(shown[2], segmentation.overlay(sample.image, predicted, PALETTE))


def test_a_long_legend_says_what_it_leaves_out(figure_of):
    labels = np.arange(60).repeat(3).reshape(12, 15)
    sample = SegmentationSample(np.zeros((12, 15, 3), np.uint8), labels, labels)
    names = [f"class {index}" for index in range(60)]
    figure = figure_of(
        segmentation, segmentation.draw_segmentation, [sample], names, [(index, 0, 0) for index in range(60)]
    )
    assert len(figure.legends[0].get_texts()) == segmentation.LONGEST_LEGEND
    assert "20 further classes" in caption_of(figure)


# ---------------------------------------------------------------- detections


def crowd(count: int, scores: bool = True) -> Instances:
    rng = np.random.default_rng(1)
    corners = rng.uniform(0, 60, (count, 2))
    masks = np.zeros((count, 96, 96), bool)
    for mask, (x, y) in zip(masks, corners.astype(int), strict=True):
        mask[y : y + 20, x : x + 20] = True
    boxes = np.concatenate([corners, corners + 20], axis=1)
    return Instances(boxes, rng.integers(0, 3, count), masks, rng.uniform(0, 1, count) if scores else None)


def test_detections_show_what_reaches_the_threshold_highest_first(figure_of):
    from matplotlib.patches import Rectangle

    found = dataclasses.replace(crowd(3), scores=np.array([0.3, 0.6, 0.9]), labels=np.array([0, 1, 2]))
    sample = DetectionSample(np.zeros((96, 96, 3), np.uint8), crowd(1, scores=False), found)
    figure = figure_of(
        detections, detections.draw_detections, [sample], ["cat", "dog", "cow"], caption="Data: farm.", threshold=0.5
    )
    axis = figure.axes[1]
    assert [text.get_text() for text in axis.texts] == ["cow 0.90", "dog 0.60"]
    corners = {rectangle.get_xy() for rectangle in axis.patches if isinstance(rectangle, Rectangle)}
    # -0.5: boxes count from the first pixel's edge, matplotlib from its middle
    assert corners == {tuple(found.boxes[index, :2] - 0.5) for index in (1, 2)}
    assert caption_of(figure) == "Detections with a score of at least 0.5. Data: farm."
    covered = (axis.images[0].get_array() > 0).any(axis=2)
    assert np.array_equal(covered, found.masks[1] | found.masks[2])


def test_labels_never_cover_each_other_and_the_rest_is_counted(figure_of):
    sample = DetectionSample(np.zeros((96, 96, 3), np.uint8), crowd(2, scores=False), crowd(40))
    figure = figure_of(
        detections, detections.draw_detections, [sample], ["somewhat long name", "dog", "cow"], threshold=0.0
    )
    texts = figure.axes[1].texts
    extents = [text.get_window_extent() for text in texts]
    assert len(texts) > 5
    assert not any(a.overlaps(b) for index, a in enumerate(extents) for b in extents[:index])
    left_out = 40 - len(texts) + 2 - len(figure.axes[0].texts)
    assert f"left out for want of room: {left_out}." in caption_of(figure)


def test_no_detection_is_said(figure_of):
    nothing = Instances(np.zeros((0, 4)), np.zeros(0, int), np.zeros((0, 8, 8), bool), np.zeros(0))
    sample = DetectionSample(np.zeros((8, 8, 3), np.uint8), crowd(0, scores=False), nothing)
    figure = figure_of(detections, detections.draw_detections, [sample], ["cat"])
    assert [text.get_text() for axis in figure.axes for text in axis.texts] == ["none", "none"]


def test_true_masks_come_from_polygons_and_run_lengths():
    square = dict(bbox=[1, 1, 4, 4], bbox_label=2, mask=[[1, 1, 4, 1, 4, 4, 1, 4]])
    runs = dict(bbox=[0, 0, 1, 2], bbox_label=0, mask=dict(size=[6, 5], counts=[0, 2, 28]))
    ignored = dict(bbox=[0, 0, 1, 1], bbox_label=0, ignore_flag=1)
    found = true_instances([square, runs, ignored], (6, 5))
    assert found.labels.tolist() == [2, 0] and found.masks.shape == (2, 6, 5)
    assert np.argwhere(found.masks[0]).min(0).tolist() == [1, 1] and found.masks[0].sum() == 9
    assert np.argwhere(found.masks[1]).tolist() == [[0, 0], [1, 0]]
    assert true_instances([], (6, 5)).boxes.shape == (0, 4)


# ---------------------------------------------------------------- attention


def mix(module: nn.Module, tokens: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
    value = module.qkv(tokens).unflatten(2, (3, module.num_heads, module.head_dim))[:, :, 2].transpose(1, 2)
    return module.proj((probabilities @ value).transpose(1, 2).flatten(2))


@torch.no_grad()
@pytest.mark.parametrize("qk_norm", [False, True])
def test_probabilities_give_the_output_of_timms_attention(qk_norm):
    module = randomise(Attention(32, 4, qkv_bias=True, qk_norm=qk_norm, norm_layer=nn.LayerNorm))
    tokens, bias = torch.randn(2, 11, 32), torch.randn(1, 4, 11, 11)
    for added in (None, bias):
        found = attention.attention_probabilities(module, tokens, bias=added)
        torch.testing.assert_close(found.sum(3), torch.ones(2, 4, 11))
        # 1e-5: two orders of summation in float32
        torch.testing.assert_close(mix(module, tokens, found), module(tokens, attn_mask=added), atol=1e-5, rtol=1e-5)
        some = attention.attention_probabilities(module, tokens, bias=added, queries=[3, 0])
        torch.testing.assert_close(some, found[:, :, [3, 0]])


@torch.no_grad()
@pytest.mark.parametrize("size", [(3, 5), (4, 4)])
def test_probabilities_include_decomposed_positions_also_resampled_ones(size):
    module = GridAttention(32, 4, qkv_bias=True)
    module.add_decomposed_positions(size)
    tokens, grid = torch.randn(2, 15, 32), (3, 5)
    found = attention.attention_probabilities(randomise(module), tokens, grid)
    torch.testing.assert_close(mix(module, tokens, found), module(tokens, grid), atol=1e-5, rtol=1e-5)
    without = attention.attention_probabilities(module, tokens)
    assert (found - without).abs().max() > 0.01


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "options", "block"),
    [
        (ViTEncoder, {}, 2),
        (ViTForClassification, dict(pool="avg"), 2),
        (DenseViT, dict(out_indices=(0, 1), rel_pos_bias="per_block"), 1),  # block 2 never runs
        (DenseViT, dict(out_indices=(2,), rel_pos_bias="shared", use_cls_token=False), 2),
        (DenseViT, dict(out_indices=(2,), window_size=2, global_blocks=(1,), rel_pos_bias="decomposed",
                        use_cls_token=False), 1),
    ],
)  # fmt: skip
def test_maps_are_the_rows_of_the_last_global_block(kind, options, block):
    encoder = randomise(kind(**SMALL, **options))
    images, seen = torch.randn(2, 3, 24, 40), {}

    def remember(module, args, kwargs, output):
        seen.update(args=args, kwargs=kwargs, output=output)

    with torch.no_grad():
        handle = encoder.blocks[block].attn.register_forward_hook(remember, with_kwargs=True)
        encoder(images)
        handle.remove()
    found = attention.attention_maps(encoder, images)
    prefix = int(getattr(encoder, "use_cls_token", True))
    assert [each.block for each in found] == [block, block]
    assert [each.query for each in found] == [None if prefix else (1, 2)] * 2
    # the output of that token, from the module itself, is the maps' mix of values
    module, tokens = encoder.blocks[block].attn, seen["args"][0]
    value = module.qkv(tokens).unflatten(2, (3, 4, 8))[:, :, 2].transpose(1, 2)
    rows = torch.from_numpy(np.stack([each.heads for each in found])).flatten(2)
    rest = 1 - rows.sum(2, keepdim=True)
    assert (rest > 1e-6).all() == bool(prefix) and rest.min() > -1e-5  # the class token's share of its own attention
    rows = torch.cat([rest, rows], dim=2) if prefix else rows
    mixed = module.proj((rows.unsqueeze(2) @ value).flatten(1))
    asked = 0 if prefix else 1 * 5 + 2
    torch.testing.assert_close(mixed, seen["output"][:, asked], atol=1e-5, rtol=1e-5)
    assert not any(each.attn._forward_pre_hooks for each in encoder.blocks)


def test_windows_only_have_no_map_and_leave_no_hook():
    encoder = DenseViT(**SMALL, out_indices=(2,), window_size=2, use_cls_token=False)
    with pytest.raises(ConfigError, match="global"):
        attention.attention_maps(encoder, torch.randn(1, 3, 24, 40))
    assert not any(each.attn._forward_pre_hooks for each in encoder.blocks)


@pytest.mark.parametrize("heads", [3, 12, 16])
def test_every_head_and_their_mean_are_drawn(figure_of, heads):
    maps = attention.AttentionMaps(np.random.default_rng(0).random((heads, 3, 5), np.float32), (1, 2), 7)
    image = np.zeros((24, 40, 3), np.uint8)
    figure = figure_of(attention, attention.draw_attention, [image, image], [maps, maps])
    titled = {axis.get_title(): axis for axis in figure.axes if axis.get_title()}
    assert set(titled) == {"image", "mean", *(f"head {index + 1}" for index in range(heads))}
    assert np.array_equal(titled["head 2"].images[0].get_array(), maps.heads[1])
    np.testing.assert_allclose(titled["mean"].images[0].get_array(), maps.heads.mean(0))
    (x,), (y,) = titled["image"].lines[0].get_data()
    assert (x, y) == (2.5 * 8 - 0.5, 1.5 * 8 - 0.5)  # the middle of patch (1, 2), in pixels whose middles are integers
    assert "cross" in caption_of(figure) and "block 8" in caption_of(figure)


# ---------------------------------------------------------------- precision and recall


def evaluate(detected: list[tuple], categories: int = 2) -> COCOeval:
    """COCO's evaluation of boxes (image, category, x, score) of side 10 with objects at x = 0 and x = 50."""
    images = [dict(id=index, width=100, height=100) for index in range(4)]
    truth = [
        dict(id=10 * image["id"] + x + 1, image_id=image["id"], category_id=1, bbox=[x, 0, 10, 10], area=100, iscrowd=0)
        for image in images for x in (0, 50)
    ]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        known, found = COCO(), COCO()
        known.dataset = dict(
            images=images,
            annotations=truth,
            categories=[dict(id=1 + index, name=str(index)) for index in range(categories)],
        )
        known.createIndex()
        found = known.loadRes(
            [dict(image_id=i, category_id=c, bbox=[x, 0, 10, 10], score=score) for i, c, x, score in detected]
        )
        evaluation = COCOeval(known, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def test_precision_is_pycocotools_and_ap_its_area():
    rng = np.random.default_rng(0)
    images, places, scores = rng.integers(0, 4, 60), rng.choice([0, 1, 2, 4, 50, 53, 30], 60), rng.random(60)
    evaluation = evaluate(
        [(int(image), 1, float(x), float(score)) for image, x, score in zip(images, places, scores, strict=True)]
    )
    found = curves.PrecisionRecall.of(evaluation)
    assert np.array_equal(found.precision[:, :, 0], evaluation.eval["precision"][:, :, 0, 0, -1])
    half, three_quarters, mean = found.curves()
    np.testing.assert_allclose([mean.mean(), half.mean(), three_quarters.mean()], evaluation.stats[:3])
    assert 0 < three_quarters.mean() < half.mean() < 1
    np.testing.assert_allclose(found.class_ap()[0], evaluation.stats[0])
    assert np.isnan(found.class_ap()[1])  # no object of that class


def test_precision_over_recall_by_hand():
    # hit, miss, hit, hit of 8 objects: precision 1 up to recall 1/8, then 3/4 (the best at any higher recall) to 3/8
    evaluation = evaluate([(0, 1, 0, 0.9), (0, 1, 25, 0.8), (1, 1, 0, 0.7), (2, 1, 50, 0.6)])
    curve = curves.PrecisionRecall.of(evaluation).curves()[0]
    expected = np.select([evaluation.params.recThrs <= 1 / 8, evaluation.params.recThrs <= 3 / 8], [1.0, 0.75], 0.0)
    np.testing.assert_allclose(curve, expected)


def test_drawn_curves_and_class_values(figure_of):
    found = curves.PrecisionRecall.of(evaluate([(0, 1, 0, 0.9), (1, 1, 0, 0.7)]))
    figure = figure_of(curves, curves.draw_precision_recall, {"bbox": found, "segm": found}, caption="Data: boxes.")
    assert [axis.get_title() for axis in figure.axes] == ["boxes", "masks"]
    drawn = [line.get_ydata() for line in figure.axes[1].lines]
    assert all(np.array_equal(one, other) for one, other in zip(drawn, found.curves(), strict=True))
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert names[0] == f"IoU ≥ 0.50: AP {100 * found.curves()[0].mean():.1f}" and len(names) == 3
    values = {"boxes": np.array([0.2, np.nan, 0.7]), "masks": np.array([0.1, np.nan, 0.8])}
    figure = figure_of(curves, curves.draw_class_values, values, ["cat", "dog", "cow"])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["cow", "cat"]
    np.testing.assert_allclose(figure.axes[0].lines[1].get_xdata(), [80, 10])
    assert "1 of 3 classes" in caption_of(figure)


# ---------------------------------------------------------------- files and names


def test_files_are_readable_small_and_the_same_each_time(tmp_path):
    counts = np.random.default_rng(0).integers(0, 50, (150, 150))
    names = [f"a class with a rather long name {index}" for index in range(150)]
    for name in ("one", "two"):
        confusion.draw_confused_pairs(counts, names, tmp_path / f"{name}.png", caption="Data: " + "words " * 60)
        curves.draw_class_values(dict(IoU=confusion.class_iou(counts)), names, tmp_path / f"{name}-iou.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert (tmp_path / "one-iou.png").read_bytes() == (tmp_path / "two-iou.png").read_bytes()
    for path in tmp_path.glob("*.png"):
        width, height = Image.open(path).size
        assert width <= 1500 and height <= 1500 and path.stat().st_size < 1e6


def test_dollar_signs_are_no_mathematics(tmp_path):
    names = ["a $\\frac{ price", "$x_$"]
    caption = "Data: $\\frac{, of US$ and A$."
    confusion.draw_confusion(np.ones((2, 2), int), names, tmp_path / "matrix.png", caption=caption)
    sample = SegmentationSample(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), int), np.ones((8, 8), int))
    segmentation.draw_segmentation([sample], names, PALETTE, tmp_path / "map.png", caption=caption)
    found = dataclasses.replace(crowd(2), labels=np.array([0, 1]))
    pair = DetectionSample(np.zeros((96, 96, 3), np.uint8), found, found)
    detections.draw_detections([pair], names, tmp_path / "objects.png", caption=caption, threshold=0.0)
    assert len(list(tmp_path.glob("*.png"))) == 3


def test_wordnet_numbers_become_words_where_these_are_unambiguous():
    assert readable(("n01440764", "n02123045")) == ("tench", "tabby")
    cranes = ("n02012849", "n03126707")  # the bird and the machine
    assert readable(cranes) == cranes
    assert readable(("n01440764", "n99999999")) == ("tench", "n99999999")
    assert readable(("cat", "n01440764")) == ("cat", "n01440764")
    assert not any(re.search(r"n\d{8}", name) for name in readable(("n02086240", "n02087394")))
