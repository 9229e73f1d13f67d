"""Every full-size transfer config against the table of its published protocol (tests/protocols).

A config without table fails, as does a value that departs from its table, and a small variant that departs from the
full-size config it inherits from in anything but what the rules in small_variants.toml allow.
"""

import copy
from fnmatch import fnmatchcase

import pytest
from mmengine.registry import TRANSFORMS, DefaultScope
from protocol_docs import PAGE, with_tables
from protocol_tables import (
    SECTIONS,
    batch,
    build,
    count_by_layer,
    differences,
    full_size_base,
    layer_of,
    learning_rates,
    load,
    look_up,
    plain,
    published_rate,
    read_table,
    settings_by_name,
    table_names,
    tables_by_config,
    transfer_configs,
    variant_rules,
)

STEPS_PER_EPOCH = 125  # a tenth of ImageNet's at a batch of 1024: the same curve, sampled elsewhere
SMALL = transfer_configs(small=True)
FULL = transfer_configs(small=False)
TRAINED = [name for name in FULL if load(name).get("train_cfg")]
OF_TRAINING = {"training", "schedule", "groups", "parameters"}


@pytest.fixture
def table(name):
    return read_table(tables_by_config()[name][0])


def section(table, key):
    """A section's values without their source."""
    return {name: value for name, value in table[key].items() if name != "source"}


def mismatches(expected: dict, found: dict) -> dict:
    """Keys whose values differ, with both values; numbers may differ by rounding."""
    return {
        key: (value, found[key])
        for key, value in expected.items()
        if not (found[key] == pytest.approx(value, rel=1e-9, abs=0.0) if is_number(value) else found[key] == value)
    }


def is_number(value) -> bool:
    return isinstance(value, float) or (isinstance(value, list) and all(isinstance(item, float) for item in value))


def test_every_full_size_config_has_exactly_one_table():
    claims = tables_by_config()
    assert set(claims) == set(FULL)
    assert {name: tables for name, tables in claims.items() if len(tables) > 1} == {}


@pytest.mark.parametrize("name", table_names())
def test_every_table_states_its_sources(name):
    table = read_table(name)
    trains = any(load(config).get("train_cfg") for config in table["configs"])
    assert {key for key in table if key in SECTIONS} == set(SECTIONS) - (set() if trains else OF_TRAINING)
    assert [key for key in SECTIONS if key in table and not table[key].get("source", "").strip()] == []


@pytest.mark.parametrize("name", FULL)
def test_record_and_config(name, table):
    config = load(name)
    assert dict(config.record) == section(table, "record")
    assert config.pretrained == config.model.backbone.pretrained == ""
    assert "emae_mm.registry" in config.custom_imports.imports
    expected = section(table, "config")
    assert mismatches(expected, {path: look_up(config, path) for path in expected}) == {}


@pytest.mark.parametrize("name", FULL)
def test_pipelines(name, table):
    config = load(name)
    for split in ("train", "val", "test") if config.get("train_cfg") else ("test",):
        pipeline = config[f"{split}_dataloader"].dataset.pipeline
        # what a training reports at its end is the protocol's test
        assert plain(pipeline) == table["data"]["test" if split == "val" else split], split
        with DefaultScope.overwrite_default_scope(config.default_scope):
            for step in pipeline:
                TRANSFORMS.build(copy.deepcopy(step))  # building writes into it


@pytest.mark.parametrize("name", FULL)
def test_data_are_below_the_data_root(name):
    config = load(name)
    for split in ("train", "val", "test"):
        if loader := config.get(f"{split}_dataloader"):
            dataset = loader.dataset
            assert dataset.type in ("emae_mm.ImageFolder", "emae_mm.CocoFormatDataset", "emae_mm.ADE20KFormatDataset")
            prefix = dataset.data_prefix
            folders = [prefix] if isinstance(prefix, str) else [*prefix.values(), dataset.get("ann_file", "")]
            assert not any(folder.startswith(("/", dataset.data_root)) for folder in folders)


@pytest.mark.parametrize("name", FULL)
def test_model(name, table):
    model, _ = build(name)
    expected = section(table, "model")
    assert mismatches(expected, {path: look_up(model, path) for path in expected}) == {}


@pytest.mark.parametrize("name", TRAINED)
def test_optimiser(name, table):
    config, expected = load(name), section(table, "training")
    model, optimizer = build(name)
    length = "epochs" if "epochs" in expected else "iterations"
    found = dict(
        batch=batch(name),
        epochs=config.train_cfg.get("max_epochs"),
        iterations=config.train_cfg.get("max_iters"),
        wrapper=config.optim_wrapper.type,
        optimizer=type(optimizer).__name__,
        clip_grad=plain(config.optim_wrapper.get("clip_grad")),
        **plain(optimizer.defaults),
    )
    assert {"batch", length, "wrapper", "optimizer", "clip_grad", "lr", "weight_decay"} <= set(expected)
    assert mismatches(expected, found) == {}
    assert config.auto_scale_lr.base_batch_size == expected["batch"]

    settings, groups = settings_by_name(model, optimizer), section(table, "groups")
    lr, layers, rate = expected["lr"], groups["layers"], groups["layer_decay"]
    assert count_by_layer(settings, lr, layers, rate) == {key: groups[key] for key in ("decayed", "undecayed")}
    assert {group["weight_decay"] for group in settings.values()} <= {0.0, expected["weight_decay"]}
    for parameter, wanted in section(table, "parameters").items():
        if not wanted:
            assert parameter not in settings, f"{parameter} is to be frozen"
            continue
        options = plain(settings[parameter])
        options["layer"] = layer_of(options["lr"], lr, layers, rate)
        assert mismatches(wanted, options) == {}, parameter
    assert optimizer.defaults.get("amsgrad", False) is False


@pytest.mark.parametrize("name", TRAINED)
def test_schedule(name, table):
    config, training, schedule = load(name), section(table, "training"), section(table, "schedule")
    unit = STEPS_PER_EPOCH if "epochs" in training else 1
    length = (training.get("epochs") or training["iterations"]) * unit
    lr = training["lr"]
    rates = learning_rates(config, lr, length, STEPS_PER_EPOCH)
    # mmengine's linear decay ends one step early, the others are exact but for the rounding of a long product
    tolerance = lr / (length - schedule["begin"] * unit) if schedule["shape"] == "linear" else lr * 1e-9
    wrong = {
        step: (rates[step], wanted)
        for step in [*range(0, length, max(length // 5000, 1)), length - 1]
        if abs(rates[step] - (wanted := published_rate(schedule, lr, step, length, unit))) > tolerance
    }
    assert wrong == {}
    for point, rate in schedule["points"]:
        # the published warm-ups are one step longer, and a point in epochs may lie between two steps
        tolerance = 2 * lr / (schedule["warmup"] * unit)
        assert rates[min(round(point * unit), length - 1)] == pytest.approx(rate, abs=tolerance), point
    assert max(rates) == pytest.approx(lr, rel=1e-3)


def allows(rule: dict, key: str) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in rule["keys"])


@pytest.mark.parametrize("name", SMALL)
def test_small_variants_keep_the_recipe(name):
    base = full_size_base(name)
    assert base in FULL, "a small variant inherits from a full-size config"
    rules = [rule for rule in variant_rules() if fnmatchcase(name, rule["configs"])]
    changed = differences(name, base)
    assert {key: values for key, values in changed.items() if not any(allows(rule, key) for rule in rules)} == {}
    assert load(name).record.task == load(base).record.task
    assert load(name).record.protocol != load(base).record.protocol, "else the two would be ranked together"
    for split in ("train", "test"):
        ours, theirs = ([step["type"] for step in pipeline(config, split)] for config in (load(name), load(base)))
        assert [kind for kind in theirs if kind in ours] == [kind for kind in ours if kind in theirs], "another order"


def pipeline(config, split: str) -> list[dict]:
    loader = config.get(f"{split}_dataloader")
    return loader.dataset.pipeline if loader else []


@pytest.mark.parametrize("rule", variant_rules(), ids=lambda rule: rule["configs"])
def test_every_rule_for_small_variants_is_needed(rule):
    configs = [name for name in SMALL if fnmatchcase(name, rule["configs"])]
    changed = {key for name in configs for key in differences(name, full_size_base(name))}
    assert [p for p in rule["keys"] if not any(fnmatchcase(key, p) for key in changed)] == []
    assert rule["reason"].strip()


def test_the_page_of_protocols_has_the_tables_numbers():
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_tables(page), "run: python tests/protocol_docs.py"
