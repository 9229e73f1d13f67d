"""That the tables of protocols see a drift: each change of a config makes the test fail that is to see it."""

import copy

import protocol_tables
import pytest
import test_protocols as checks

FINETUNE = "classification/finetune_vit-base-p16_8xb128-100e_in1k.py"
UPERNET = "segmentation/upernet_vit-base_8xb2-160k_ade20k-512x512.py"
VARIANT = "classification/demo/linear_vit-demo_demo.py"


@pytest.fixture
def change(monkeypatch):
    """Have the tests read a config with one value changed."""

    def apply(name, path, value):
        original = protocol_tables.load
        changed = copy.deepcopy(original(name))
        changed.merge_from_dict({path: value})
        for module in (protocol_tables, checks):
            monkeypatch.setattr(module, "load", lambda asked: changed if asked == name else original(asked))
        monkeypatch.setattr(checks, "build", protocol_tables.build.__wrapped__)
        return protocol_tables.read_table(protocol_tables.tables_by_config()[name][0]) if name != VARIANT else None

    return apply


@pytest.mark.parametrize(
    ("check", "path", "value"),
    [
        (checks.test_optimiser, "optim_wrapper.optimizer.lr", 1.9e-3),
        (checks.test_optimiser, "optim_wrapper.optimizer.weight_decay", 0.04),
        (checks.test_optimiser, "optim_wrapper.optimizer.betas", (0.9, 0.99)),
        (checks.test_optimiser, "optim_wrapper.paramwise_cfg.layer_decay_rate", 0.7),
        (checks.test_optimiser, "optim_wrapper.paramwise_cfg.no_decay_names", ["cls_token"]),
        (checks.test_optimiser, "optim_wrapper.clip_grad", dict(max_norm=1.0)),
        (checks.test_optimiser, "optim_wrapper.accumulative_counts", 2),
        (checks.test_optimiser, "train_dataloader.batch_size", 64),
        (checks.test_optimiser, "train_cfg.max_epochs", 90),
        (checks.test_schedule, "param_scheduler.0.end", 6),
        (checks.test_schedule, "param_scheduler.1.eta_min_ratio", 0.0),
        (checks.test_model, "model.backbone.drop_path_rate", 0.2),
        (checks.test_model, "model.backbone.pool", "cls"),
        (checks.test_record_and_config, "model.head.loss.label_smooth_val", 0.0),
        (checks.test_record_and_config, "model.train_cfg.augments.1.alpha", 0.8),
        (checks.test_record_and_config, "record.protocol", "another"),
        (checks.test_pipelines, "train_dataloader.dataset.pipeline.1.crop_ratio_range", (0.2, 1.0)),
        (checks.test_pipelines, "train_dataloader.dataset.pipeline.4.prob", 0.5),
        (checks.test_pipelines, "test_dataloader.dataset.pipeline.2.crop_size", 256),
    ],
)
def test_a_drift_of_fine_tuning_is_seen(change, check, path, value):
    table = change(FINETUNE, path, value)
    with pytest.raises(AssertionError):
        check(FINETUNE, table)


@pytest.mark.parametrize(
    ("check", "path", "value"),
    [
        (checks.test_schedule, "param_scheduler.1.power", 0.9),
        (checks.test_schedule, "param_scheduler.0.end", 1000),
        (checks.test_optimiser, "train_cfg.max_iters", 80000),
        (checks.test_optimiser, "model.backbone.init_values", None),
        (checks.test_model, "model.backbone.out_indices", (2, 5, 8, 11)),
        (checks.test_record_and_config, "model.test_cfg.stride", (512, 512)),
        (checks.test_pipelines, "train_dataloader.dataset.pipeline.3.cat_max_ratio", 1.0),
    ],
)
def test_a_drift_of_upernet_is_seen(change, check, path, value):
    table = change(UPERNET, path, value)
    with pytest.raises(AssertionError):
        check(UPERNET, table)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.backbone.pool", "avg_norm"),
        ("model.neck.affine", True),
        ("optim_wrapper.optimizer.weight_decay", 0.1),
        ("record.protocol", "mae-linear-probe-90e"),
    ],
)
def test_a_drift_of_a_small_variant_is_seen(change, path, value):
    change(VARIANT, path, value)
    with pytest.raises(AssertionError):
        checks.test_small_variants_keep_the_recipe(VARIANT)
