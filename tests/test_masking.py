"""Mask strategies: protocols' acceptance tests 1 and 5, and bad input."""

import pytest
import torch

from emae_mm.errors import ConfigError
from emae_mm.models.masking import (
    ComplementaryMasking,
    ParallelMasking,
    PureRandomMasking,
    RandomMasking,
    build_masking,
    hidden_mask,
)

PATCHES = 196


@pytest.mark.parametrize("parts", [2, 4, 7, 14, 28])
def test_parallel_parts_partition_the_image(parts):
    strategy = ParallelMasking(parts)
    (ids_keep,) = strategy.split(strategy.draw(5, PATCHES))
    assert ids_keep.shape == (5, parts, PATCHES // parts)
    assert torch.equal(ids_keep.flatten(1).sort(dim=1).values, torch.arange(PATCHES).expand(5, -1))
    mask = hidden_mask(ids_keep, PATCHES)
    assert torch.equal(mask.sum(dim=1), torch.full((5, PATCHES), parts - 1.0))
    assert torch.equal(mask.sum(dim=2), torch.full((5, parts), PATCHES - PATCHES / parts))


def test_random_masking_hides_the_mask_ratio():
    (ids_keep,) = RandomMasking(0.75).split(RandomMasking(0.75).draw(3, PATCHES))
    assert ids_keep.shape == (3, 1, 49)
    assert len(set(ids_keep[0, 0].tolist())) == 49


def test_never_visible_share_of_pure_random_and_parallel():
    """0.75**4 = 31.6 % of the patches are seen by no part with independent draws, none with parallel masking."""
    strategy = PureRandomMasking(4, 0.75)
    (ids_keep,) = strategy.split(strategy.draw(512, PATCHES))
    never = (hidden_mask(ids_keep, PATCHES).sum(dim=1) == 4).float().mean().item()
    # 512*196 draws of probability p: standard deviation below sqrt(p(1-p)/1e5) = 0.0015; five of them.
    assert never == pytest.approx(0.75**4, abs=0.0075)
    (ids_keep,) = ParallelMasking(4).split(ParallelMasking(4).draw(64, PATCHES))
    assert not (hidden_mask(ids_keep, PATCHES).sum(dim=1) == 4).any()


def test_complementary_parts_complete_each_other():
    strategy = ComplementaryMasking(0.75)
    first, second = strategy.split(strategy.draw(4, PATCHES))
    assert first.shape == (4, 1, 49) and second.shape == (4, 1, 147)
    assert torch.equal(hidden_mask(first, PATCHES), 1 - hidden_mask(second, PATCHES))


def test_every_patch_is_equally_likely_to_be_visible():
    (ids_keep,) = RandomMasking(0.75).split(RandomMasking(0.75).draw(20000, 16))
    share = 1 - hidden_mask(ids_keep, 16).mean(dim=(0, 1))
    # standard deviation sqrt(.25*.75/20000) = 0.003; five of them
    assert torch.allclose(share, torch.full((16,), 0.25), atol=0.016)


def test_masks_do_not_depend_on_the_number_of_processes(monkeypatch):
    import emae_mm.models.masking as module

    torch.manual_seed(3)
    whole = ParallelMasking(4).draw(6, 16)
    for world in (2, 3):
        for rank in range(world):
            monkeypatch.setattr(module, "get_world_size", lambda world=world: world)
            monkeypatch.setattr(module, "get_rank", lambda rank=rank: rank)
            torch.manual_seed(3)
            assert torch.equal(ParallelMasking(4).draw(6 // world, 16), whole[rank::world])


def test_indivisible_parts_are_one_clear_error():
    with pytest.raises(ConfigError) as error:
        build_masking({"type": "ParallelMasking", "num_parts": 5}, PATCHES)
    message = str(error.value)
    assert "5" in message and "196" in message and "[2, 4, 7, 14, 28, 49, 98, 196]" in message


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"type": "Checkerboard"}, "ParallelMasking"),
        ({"type": "RandomMasking", "mask_ratio": 1.5}, "1.5"),
        ({"type": "RandomMasking", "mask_ratio": 0.999}, "196"),
        ({"type": "RandomMasking", "ratio": 0.5}, "ratio"),
        ({"type": "ParallelMasking", "num_parts": 1}, "num_parts=1"),
    ],
)
def test_bad_strategies_name_the_value(spec, named):
    with pytest.raises(ConfigError, match=r"(?s)" + named):
        build_masking(spec, PATCHES)
