"""Multi-View MAE: the contrastive loss against a plain loop, two processes against one, and the paper's variants."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from emae_mm.engine.seeding import SeededDataset, SeededIndex
from emae_mm.errors import ConfigError
from emae_mm.models.algorithms import MAE, MultiViewMAE
from emae_mm.models.contrast import contrastive_loss

BACKBONE = dict(arch=dict(embed_dim=24, depth=2, num_heads=3), img_size=32, patch_size=8)
DECODER = dict(decoder_dim=16, depth=1, num_heads=2)
# LN, unlike BN, does not depend on how a batch is shared among CPU processes (SyncBN makes BN so on GPUs)
PROJECTOR = dict(hidden_dim=32, out_dim=8, norm=dict(type="LN"))


def tiny(cls=MultiViewMAE, **kwargs):
    if cls is MultiViewMAE:
        kwargs.setdefault("projector", PROJECTOR)
    return cls(backbone=BACKBONE, decoder=DECODER, **kwargs).double()


def images(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, dtype=torch.float64)


def plain_nt_xent(first, second, temperature):
    """NT-Xent, view by view (SimCLR, Eq. 1), and the share of views most similar to their partner."""
    views = [v / v.square().sum().sqrt() for v in (*first, *second)]
    count, losses, right = len(views), [], 0
    for i in range(count):
        partner = (i + count // 2) % count
        others = {k: views[i].dot(views[k]) / temperature for k in range(count) if k != i}
        losses.append(-others[partner] + torch.stack(list(others.values())).exp().sum().log())
        right += max(others, key=others.get) == partner
    return sum(losses) / count, right / count


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_contrastive_loss_and_gradients_equal_a_plain_loop(temperature):
    first = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    second = (first + torch.randn(5, 7, dtype=torch.float64)).detach().requires_grad_()
    loss, top1 = contrastive_loss(first, second, temperature)
    wanted, right = plain_nt_xent(first, second, temperature)
    torch.testing.assert_close(loss, wanted, rtol=1e-12, atol=0)
    assert top1.item() == pytest.approx(right) and 0 < right < 1 and not top1.requires_grad
    gradients = [torch.autograd.grad(one, (first, second)) for one in (loss, wanted)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)


def test_contrastive_loss_is_symmetric_and_blind_to_scale():
    first, second = torch.randn(2, 6, 4, dtype=torch.float64)
    loss, _ = contrastive_loss(first, second, 0.1)
    torch.testing.assert_close(contrastive_loss(second, first, 0.1)[0], loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(contrastive_loss(3 * first, second / 7, 0.1)[0], loss, rtol=1e-12, atol=0)


def test_contrastive_loss_is_computed_in_float32_under_autocast():
    first, second = torch.randn(2, 6, 4)
    exact, _ = contrastive_loss(first, second, 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        assert contrastive_loss(first, second, 0.1)[0] == exact
        assert contrastive_loss(first.bfloat16(), second.bfloat16(), 0.1)[0].dtype == torch.float32


def _one_of_two_processes(rank: int, folder: str) -> None:
    """Losses and DDP's averaged gradients of one process that has every second image."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    given = torch.load(Path(folder) / "given.pth", weights_only=True)
    model = tiny()
    model.load_state_dict(given["model"])
    parallel = torch.nn.parallel.DistributedDataParallel(model)
    torch.manual_seed(5)  # all processes draw the masks of the global batch
    losses = parallel([view[rank::2] for view in given["views"]], mode="loss")
    sum(value for name, value in losses.items() if "loss" in name).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    kept = {name: value.detach() for name, value in losses.items()}
    torch.save({"gradients": gradients, "losses": kept}, Path(folder) / f"{rank}.pth")
    torch.distributed.destroy_process_group()


def test_two_processes_are_one_with_the_whole_batch(tmp_path):
    model, views = tiny(), [images(6), images(6)]
    torch.save({"model": model.state_dict(), "views": views}, tmp_path / "given.pth")
    torch.manual_seed(5)
    wanted = model(views, mode="loss")
    sum(value for name, value in wanted.items() if "loss" in name).backward()
    torch.multiprocessing.start_processes(_one_of_two_processes, args=(str(tmp_path),), nprocs=2, start_method="fork")
    both = [torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in range(2)]
    for name, value in wanted.items():
        found = (both[0]["losses"][name] + both[1]["losses"][name]) / 2
        torch.testing.assert_close(found, value.detach(), rtol=1e-12, atol=0)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            for one in both:  # float64, sums in another order
                torch.testing.assert_close(one["gradients"][name], parameter.grad, rtol=1e-9, atol=1e-13)


def test_each_view_reconstructs_itself():
    model = tiny()
    mae = tiny(MAE, mask_ratio=0.8)
    mae.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("projector.")})
    views, orders = (images(3), images(3)), (model.masking.draw(3, 16), model.masking.draw(3, 16))
    losses = model.losses(torch.cat(views), torch.cat(orders))
    wanted = [mae.losses(*one)["loss_reconstruction"] for one in zip(views, orders, strict=True)]
    torch.testing.assert_close(losses["loss_reconstruction"], sum(wanted) / 2, rtol=1e-12, atol=0)


def test_contrast_is_between_projected_means_of_visible_patches():
    model = tiny(contrast_weight=0.5)
    both, orders = images(6), model.masking.draw(6, 16)
    tokens, means = model.backbone.embed(both), []
    for token, order in zip(tokens, orders[:, 0], strict=True):
        means.append(model.backbone.encode(token[order[:3]].unsqueeze(0))[0, 1:].mean(dim=0))
    linear, norm, _, last = model.projector
    vectors = [last(F.relu(norm(linear(mean)))) for mean in means]
    wanted, top1 = plain_nt_xent(vectors[:3], vectors[3:], 0.1)
    losses = model.losses(both, orders)
    torch.testing.assert_close(losses["loss_contrast"], 0.5 * wanted, rtol=1e-10, atol=0)
    assert losses["contrast_top1"].item() == pytest.approx(top1)


@pytest.mark.parametrize(("ratio", "visible"), [(0.5, 98), (0.75, 49), (0.8, 39), (0.9, 19), (0.95, 9)])
def test_mask_ratios_of_the_ablation(ratio, visible):
    backbone = dict(arch=BACKBONE["arch"], img_size=224, patch_size=16)
    model = MultiViewMAE(backbone, DECODER, mask_ratio=ratio, projector=PROJECTOR)
    (group,) = model.masking.groups(model.draw(torch.empty(8, 3, 224, 224)))
    assert group.ids_keep.shape == (8, 1, visible)
    assert not torch.equal(group.ids_keep[:4], group.ids_keep[4:]), "the views have masks of their own"


def test_without_two_targets_is_one_crop_under_two_masks():
    model, image = tiny(two_targets=False), images(4)
    torch.manual_seed(3)
    found = model([image], mode="loss")
    torch.manual_seed(3)
    wanted = model.losses(torch.cat([image, image]), model.masking.draw(8, 16))
    assert found == wanted


def test_without_contrast_there_is_no_projector():
    model = tiny(contrast_weight=0)
    assert set(model([images(2), images(2)], mode="loss")) == {"loss_reconstruction"}
    assert model.state_dict().keys() == tiny(MAE).state_dict().keys()


@pytest.mark.parametrize(("two_targets", "given"), [(True, 1), (False, 2), (True, 3)])
def test_wrong_number_of_views_is_one_clear_error(two_targets, given):
    with pytest.raises(ConfigError, match=f"the data pipeline gives {given}.*\n.*num_views"):
        tiny(two_targets=two_targets)([images(2)] * given, mode="loss")


@pytest.mark.parametrize(
    ("wrong", "named"),
    [(dict(temperature=0), "temperature=0"), (dict(contrast_weight=-1), "contrast_weight=-1"),
     (dict(projector=dict(norm=dict(type="GN"))), "'GN'")],
)  # fmt: skip
def test_wrong_options_are_named(wrong, named):
    with pytest.raises(ConfigError, match=named):
        tiny(**wrong)


def test_every_parameter_gets_a_gradient_in_half_precision():
    model = MultiViewMAE(BACKBONE, DECODER, projector=dict(hidden_dim=32, out_dim=8, norm=dict(type="BN")))
    with torch.autocast("cpu", torch.bfloat16):
        losses = model([images(4).float(), images(4).float()], mode="loss")
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    sum(value for name, value in losses.items() if "loss" in name).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_the_pipeline_gives_two_crops_that_follow_the_samples_seed(tmp_path, repo):
    folder = tmp_path / "train" / "a"
    folder.mkdir(parents=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(folder / "0.png")
    config = Config.fromfile(repo / "configs/pretrain/tiny/multi-view-mae_vit-tiny64_folder.py")
    init_default_scope(config.default_scope)
    data = SeededDataset(config.train_dataloader.dataset | dict(data_root=str(tmp_path)))
    first, second = data[SeededIndex(0, seed=1)]["inputs"]
    assert first.shape == second.shape == (3, 64, 64) and not torch.equal(first, second)
    again, other = data[SeededIndex(0, seed=1)]["inputs"], data[SeededIndex(0, seed=2)]["inputs"]
    assert torch.equal(again[0], first) and torch.equal(again[1], second)
    assert not torch.equal(other[0], first)
