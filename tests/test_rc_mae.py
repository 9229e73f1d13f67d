"""RC-MAE against a plain float64 loop over iterations, images and tokens written from the published description."""

import copy
import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapper

from emae_mm.checkpoints import export_encoder, load_encoder
from emae_mm.engine.ema import FollowStudentHook
from emae_mm.errors import ConfigError
from emae_mm.models import ViTEncoder
from emae_mm.models.algorithms import MAE, RCMAE

BACKBONE = dict(arch=dict(embed_dim=24, depth=2, num_heads=3), img_size=32, patch_size=8)
DECODER = dict(decoder_dim=16, depth=2, num_heads=2)
EPOCHS, PER_EPOCH, BATCH = 2, 4, 2
LR, WEIGHT_DECAY = 1e-2, 0.05


def tiny(dtype=torch.float64, **kwargs) -> RCMAE:
    return RCMAE(BACKBONE, DECODER, **kwargs).to(dtype).train()


def hidden_predictions(encoder, decoder, image, visible, hidden):
    """What encoder and decoder predict for the hidden patches of one image (3, 32, 32): (m, P)."""
    pieces = [image[:, r : r + 8, c : c + 8].flatten() for r, c in itertools.product(range(0, 32, 8), repeat=2)]
    kernel, bias = encoder.patch_embed.proj.weight.flatten(1), encoder.patch_embed.proj.bias
    x = [encoder.cls_token[0, 0] + encoder.pos_embed[0, 0]]
    x = torch.stack(x + [kernel @ pieces[i] + bias + encoder.pos_embed[0, 1 + i] for i in visible])
    for block in encoder.blocks:
        x = block(x.unsqueeze(0)).squeeze(0)  # timm's own forward
    x = decoder.decoder_embed(encoder.norm(x))
    full = [x[0]] + [x[1 + visible.index(i)] if i in visible else decoder.mask_token[0, 0] for i in range(16)]
    x = torch.stack(full) + decoder.decoder_pos_embed[0]
    for block in decoder.decoder_blocks:
        x = block(x.unsqueeze(0)).squeeze(0)  # timm's own forward
    return decoder.decoder_pred(decoder.decoder_norm(x))[1:][hidden]


def targets_of(image, hidden):
    pieces = [image[:, r : r + 8, c : c + 8] for r, c in itertools.product(range(0, 32, 8), repeat=2)]
    found = torch.stack([pieces[i].permute(1, 2, 0).flatten() for i in hidden])
    return (found - found.mean(-1, keepdim=True)) / (found.var(-1, keepdim=True) + 1e-6).sqrt()


def plain_loop(student, teacher, batches, accumulate, index, per, momentum):
    """The protocol: losses of every iteration; ``student`` and ``teacher`` are (encoder, decoder), changed in place."""
    weights = [p for module in student for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=LR, betas=(0.9, 0.95), weight_decay=WEIGHT_DECAY)
    total, found = EPOCHS * PER_EPOCH, []
    for iteration, (images, orders) in enumerate(batches):
        reconstruction, consistency = [], []
        for image, order in zip(images, orders[:, 0].tolist(), strict=True):
            visible, hidden = order[:4], order[4:]
            predicted = hidden_predictions(*student, image, visible, hidden)
            with torch.no_grad():
                wanted = hidden_predictions(*teacher, image, visible, hidden)
            reconstruction.append((predicted - targets_of(image, hidden)).square().mean())
            consistency.append((predicted - wanted).square().mean())
        losses = torch.stack(reconstruction).mean(), torch.stack(consistency).mean()
        found.append([loss.item() for loss in losses])
        (sum(losses) / accumulate).backward()
        stepped = (iteration + 1) % accumulate == 0
        if stepped:
            optimiser.step()
            optimiser.zero_grad()
        if per == "micro" or stepped:
            t = iteration % PER_EPOCH if index == "epoch_local" else iteration
            m = 1 - (1 - momentum) * (math.cos(math.pi * t / total) + 1) / 2
            for ours, theirs in zip(teacher, student, strict=True):
                for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
                    p.data = m * p.data + (1 - m) * q.data
    return found


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("per", ["micro", "step"])
@pytest.mark.parametrize("index", ["epoch_local", "global"])
def test_training_equals_a_plain_float64_loop(index, per, accumulate):
    # a low momentum, so that eight iterations show whether the teacher is right
    model = tiny(ema_index=index, ema_per=per, momentum=0.6)
    batches = [
        (torch.randn(BATCH, 3, 32, 32, dtype=torch.float64), model.masking.draw(BATCH, 16))
        for _ in range(EPOCHS * PER_EPOCH)
    ]
    student = [copy.deepcopy(model.backbone), copy.deepcopy(model.decoder)]
    teacher = copy.deepcopy(student)
    wanted = plain_loop(student, teacher, batches, accumulate, index, per, momentum=0.6)

    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=LR, betas=(0.9, 0.95), weight_decay=WEIGHT_DECAY)
    wrapper = OptimWrapper(optimiser, accumulative_counts=accumulate)
    wrapper.initialize_count_status(model, 0, len(batches))
    runner = SimpleNamespace(
        model=model, optim_wrapper=wrapper, max_iters=len(batches), train_dataloader=range(PER_EPOCH), iter=0
    )
    hook, found = FollowStudentHook(), []
    hook.before_train(runner)
    for iteration, batch in enumerate(batches):
        runner.iter = iteration
        with wrapper.optim_context(model):
            losses = model.losses(*batch)
        found.append([losses["loss_reconstruction"].item(), losses["loss_teacher"].item()])
        wrapper.update_params(sum(losses.values()))
        hook.after_train_iter(runner, batch_idx=iteration % PER_EPOCH)
    # float64; AdamW divides by small gradients, which magnifies rounding
    found, wanted = torch.tensor(found, dtype=torch.float64), torch.tensor(wanted, dtype=torch.float64)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
    assert found[0][1] == pytest.approx(0, abs=1e-25) and found[-1][1] > 1e-4
    pairs = zip([model.backbone, model.decoder, model.teacher.backbone, model.teacher.module["decoder"]],
                student + teacher, strict=True)  # fmt: skip
    for ours, theirs in pairs:
        for name, value in theirs.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-8, atol=1e-10)
    updates = len(batches) if per == "micro" else len(batches) // accumulate
    assert model.teacher.steps == updates


@pytest.mark.parametrize("masking", [None, dict(type="ParallelMasking"), dict(type="ComplementaryMasking")])
@pytest.mark.parametrize("autocast", [False, True])
def test_first_teacher_loss_is_zero_and_the_teacher_gets_no_gradient(masking, autocast):
    model = tiny(torch.float32, masking=masking)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        losses = model(torch.randn(3, 3, 32, 32), mode="loss")
    assert losses["loss_teacher"] == 0.0, "same weights, same visible patches, no dropout"
    sum(losses.values()).backward()
    assert all(p.grad is None and not p.requires_grad for p in model.teacher.parameters())
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert not model.teacher.module.training and model.backbone.training


def _disturb(model) -> None:
    with torch.no_grad():
        for p in model.teacher.parameters():
            p.add_(0.05 * torch.randn_like(p))


def test_parts_back_propagated_in_turn_have_the_same_gradients():
    gradients = []
    for at_once in (None, 1):
        torch.manual_seed(1)
        model = tiny(masking=dict(type="ParallelMasking"), consistency_weight=1.0, parts_per_pass=at_once)
        _disturb(model)
        losses = model.losses(torch.randn(2, 3, 32, 32, dtype=torch.float64), model.masking.draw(2, 16))
        assert set(losses) == {"loss_reconstruction", "loss_consistency", "loss_teacher"}
        sum(losses.values()).backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-13)  # float64, other batch shapes


def test_parts_of_unequal_size_count_equally():
    model = tiny(masking=dict(type="ComplementaryMasking"), teacher_weight=2.0)
    _disturb(model)
    images, orders = torch.randn(1, 3, 32, 32, dtype=torch.float64), model.masking.draw(1, 16)
    order, per_part = orders[0, 0].tolist(), []
    for visible, hidden in ((order[:4], order[4:]), (order[4:], order[:4])):
        ours = hidden_predictions(model.backbone, model.decoder, images[0], visible, hidden)
        theirs = hidden_predictions(model.teacher.backbone, model.teacher.module["decoder"], images[0], visible, hidden)
        per_part.append((ours - theirs).square().mean())
    loss = model.losses(images, orders)["loss_teacher"]
    torch.testing.assert_close(loss, 2 * sum(per_part) / 2, rtol=1e-10, atol=0)


def test_without_its_weight_it_is_mae():
    model, mae = tiny(teacher_weight=0), MAE(BACKBONE, DECODER).double()
    mae.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("teacher.")})
    images, orders = torch.randn(2, 3, 32, 32, dtype=torch.float64), model.masking.draw(2, 16)
    assert model.losses(images, orders) == mae.losses(images, orders)


def _train(model, images: torch.Tensor, step_of=lambda model: model) -> torch.Tensor:
    """Two steps of SGD and the teacher's updates on freshly drawn masks; ``step_of`` wraps the model."""
    torch.manual_seed(5)  # all processes draw the masks of the global batch
    wrapped, losses = step_of(model), []
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for step in range(2):
        found = wrapped(images, mode="loss")
        losses.append([found["loss_reconstruction"].item(), found["loss_teacher"].item()])
        optimiser.zero_grad()
        sum(found.values()).backward()
        optimiser.step()
        model.update_teacher(step, iterations=2, per_epoch=2, stepped=True)
    return torch.tensor(losses, dtype=torch.float64)


def _one_of_two_processes(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    given = torch.load(f"{folder}/given.pth", weights_only=True)
    model = tiny(momentum=0.6, ema_index="global")
    model.load_state_dict(given["model"])
    losses = _train(model, given["images"][rank::2], torch.nn.parallel.DistributedDataParallel)
    torch.save({"losses": losses, "model": model.state_dict()}, f"{folder}/{rank}.pth")
    torch.distributed.destroy_process_group()


def test_two_processes_are_one_with_the_whole_batch(tmp_path):
    model, images = tiny(momentum=0.6, ema_index="global"), torch.randn(4, 3, 32, 32, dtype=torch.float64)
    torch.save({"model": model.state_dict(), "images": images}, tmp_path / "given.pth")
    torch.multiprocessing.start_processes(_one_of_two_processes, args=(str(tmp_path),), nprocs=2, start_method="fork")
    wanted = _train(model, images)
    both = [torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in range(2)]
    # float64, sums in another order
    torch.testing.assert_close(sum(one["losses"] for one in both) / 2, wanted, rtol=1e-9, atol=1e-15)
    for name, value in model.state_dict().items():
        for one in both:
            torch.testing.assert_close(one["model"][name], value, rtol=1e-9, atol=1e-13)
    assert wanted[1, 1] > 0 and both[0]["model"]["teacher.steps"] == 2


def momenta(index: str, per: str, stepped=lambda iteration: True, epochs=1600, per_epoch=625) -> list[float]:
    """Momenta of the first and last epoch of a run as long as the published one (2048 images an iteration)."""
    model, found = tiny(ema_index=index, ema_per=per), []
    model.teacher.update_parameters = lambda student, momentum: found.append(momentum)
    total = epochs * per_epoch
    for iteration in (*range(per_epoch), *range(total - per_epoch, total)):
        model.update_teacher(iteration, total, per_epoch, stepped(iteration))
    return found


def test_momentum_of_the_release_stays_where_it_starts():
    found = momenta("epoch_local", "micro")
    assert len(found) == 2 * 625 and {f"{m:.6f}" for m in found} == {"0.996000"}


def test_intended_momentum_ends_at_one():
    found = momenta("global", "micro")
    assert found[0] == 0.996 and found[-1] == pytest.approx(1, abs=1e-12) and found == sorted(found)


def test_one_update_a_step():
    found = momenta("global", "step", stepped=lambda iteration: iteration % 2 == 1)
    assert len(found) == 624 // 2 + 313


def test_the_teacher_is_saved_and_exported(tmp_path):
    model, other = tiny(torch.float32), tiny(torch.float32)
    _disturb(model)
    model.teacher.steps += 7
    other.load_state_dict(model.state_dict())
    assert other.teacher.steps == 7
    export_encoder(other.encoder_for_export(), tmp_path / "encoder.pth", {})
    torch.save({"state_dict": model.state_dict()}, tmp_path / "epoch_1.pth")
    for file in ("encoder.pth", "epoch_1.pth"):  # a full checkpoint transfers the teacher, too
        encoder = ViTEncoder(**BACKBONE)
        load_encoder(encoder, tmp_path / file)
        for name, value in model.teacher.backbone.state_dict().items():
            assert torch.equal(encoder.state_dict()[name], value)
        assert not torch.equal(encoder.cls_token, model.backbone.cls_token)


def test_the_teacher_starts_from_the_weights_training_starts_from(tmp_path):
    encoder = ViTEncoder(**BACKBONE)
    export_encoder(encoder, tmp_path / "encoder.pth", {})
    model = RCMAE({**BACKBONE, "pretrained": str(tmp_path / "encoder.pth")}, DECODER)
    model.init_weights()
    assert torch.equal(model.teacher.backbone.cls_token, encoder.cls_token) and model.teacher.steps == 0
    assert model(torch.randn(2, 3, 32, 32), mode="loss")["loss_teacher"] == 0


@pytest.mark.parametrize(
    ("wrong", "named"),
    [(dict(ema_index="local"), "ema_index='local'"), (dict(ema_per="epoch"), "ema_per='epoch'"),
     (dict(momentum=1.1), "momentum=1.1"), (dict(teacher_weight=-1), "teacher_weight=-1")],
)  # fmt: skip
def test_wrong_options_are_named(wrong, named):
    with pytest.raises(ConfigError, match=named):
        tiny(**wrong)


def test_the_hook_needs_a_teacher():
    with pytest.raises(ConfigError, match="MAE has no teacher"):
        FollowStudentHook().before_train(SimpleNamespace(model=MAE(BACKBONE, DECODER)))
