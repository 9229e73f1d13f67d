"""Mask strategies: which patches each part of an image sees.

A strategy turns *patch orders* (random permutations of the patches) into the visible patches of every part. Drawing
orders and splitting them are separate steps, so that anyone can check the mathematics with orders of their own.
"""

from dataclasses import dataclass

import torch
from mmengine.dist import get_rank, get_world_size
from torch import Tensor

from emae_mm.errors import ConfigError
from emae_mm.registry import MASKINGS


def hidden_mask(ids_keep: Tensor, num_patches: int) -> Tensor:
    """The mask of every part: 1 where a patch is hidden from it, 0 where it is visible.

    Args:
        ids_keep: (B, K, n) int64.
        num_patches: N.

    Returns:
        (B, K, N) float32.
    """
    mask = torch.ones(*ids_keep.shape[:2], num_patches, device=ids_keep.device)
    return mask.scatter_(2, ids_keep, 0.0)


def complement(ids_keep: Tensor, num_patches: int) -> Tensor:
    """The hidden patches of every part in ascending order: (B, K, n) -> (B, K, N-n) int64."""
    hidden = hidden_mask(ids_keep, num_patches)
    return hidden.argsort(dim=-1, descending=True, stable=True)[..., : num_patches - ids_keep.shape[-1]]


@dataclass(frozen=True)
class PartGroup:
    """Parts of equal size.

    Attributes:
        ids_keep: (B, K, n) int64, the visible patches of each part.
        ids_hidden: (B, K, m) int64, the hidden patches each part is to predict, m = N-n unless only a share is.
    """

    ids_keep: Tensor
    ids_hidden: Tensor


class MaskStrategy:
    """Base of the strategies.

    Attributes:
        num_orders: R, independent patch orders drawn per image.
        partitions: True when the visible patches of the parts are a partition of the image, so that each patch is
            hidden from exactly K-1 parts; the self-consistency loss has a fast form for that case.
    """

    num_orders = 1
    partitions = False

    @property
    def num_parts(self) -> int:
        """K, parts per image."""
        raise NotImplementedError

    def check(self, num_patches: int) -> None:
        """Raise ConfigError when images of ``num_patches`` patches cannot be split this way."""
        raise NotImplementedError

    def split(self, orders: Tensor) -> list[Tensor]:
        """Visible patches of every part.

        Args:
            orders: (B, R, N) int64, each row a permutation of 0..N-1.

        Returns:
            groups of equally large parts, each (B, K_g, n_g) int64; the K_g add up to K.
        """
        raise NotImplementedError

    def groups(self, orders: Tensor, predicted_share: float = 1.0) -> list[PartGroup]:
        """What every part sees and is to predict.

        Args:
            orders: (B, R, N) int64, each row a permutation of 0..N-1.
            predicted_share: share of the hidden patches that is predicted, in (0, 1].

        Returns:
            one :class:`PartGroup` for each group of :meth:`split`; predicted patches are the first hidden ones in the
            random order.
        """
        groups = []
        for ids_keep in self.split(orders):
            order = orders[:, :1].expand(-1, ids_keep.shape[1], -1)
            hidden = hidden_mask(ids_keep, orders.shape[-1]).gather(2, order)
            count = predicted(orders.shape[-1] - ids_keep.shape[-1], predicted_share)
            first = hidden.argsort(dim=-1, descending=True, stable=True)[..., :count]
            groups.append(PartGroup(ids_keep, order.gather(2, first)))
        return groups

    def draw(self, batch: int, num_patches: int, device: torch.device | str = "cpu") -> Tensor:
        """Random patch orders, the ``argsort`` of uniform noise (EMAE, Algorithm 1): (batch, R, N) int64.

        Noise is drawn for the global batch and every process takes the rows of its own samples (process r of W holds
        every W-th sample from r on, which is how the samplers deal them out). With the same seed on all processes,
        masks therefore do not depend on how many processes share the work.
        """
        world = get_world_size()
        noise = torch.rand(world * batch, self.num_orders, num_patches, device=device)
        return noise[get_rank() :: world].argsort(dim=-1)


def predicted(hidden: int, share: float) -> int:
    """How many of ``hidden`` patches are predicted when a share of them is; at least one."""
    return max(1, round(hidden * share))


def _num_visible(num_patches: int, mask_ratio: float) -> int:
    # rounded down as in the MAE release; the small term keeps 13/14 of 196 patches from leaving 13.999... visible
    return int(num_patches * (1 - mask_ratio) + 1e-6)


def _check_ratio(mask_ratio: float) -> float:
    if not 0.0 < mask_ratio < 1.0:
        raise ConfigError(f"mask_ratio={mask_ratio} is not between 0 and 1", "MAE and EMAE use 0.75")
    return float(mask_ratio)


def _check_nonempty(name: str, visible: int, num_patches: int) -> None:
    if not 0 < visible < num_patches:
        raise ConfigError(
            f"{name} leaves {visible} of {num_patches} patches visible",
            "use a mask ratio that leaves at least one patch visible and one hidden",
        )


@MASKINGS.register_module()
class RandomMasking(MaskStrategy):
    """One random mask per image: MAE (EMAE paper, Table X a).

    Args:
        mask_ratio: share of the patches that is hidden, in (0, 1).
    """

    num_parts = 1

    def __init__(self, mask_ratio: float = 0.75):
        self.mask_ratio = _check_ratio(mask_ratio)

    def check(self, num_patches: int) -> None:
        _check_nonempty(f"mask_ratio={self.mask_ratio}", _num_visible(num_patches, self.mask_ratio), num_patches)

    def split(self, orders: Tensor) -> list[Tensor]:
        return [orders[:, :, : _num_visible(orders.shape[-1], self.mask_ratio)]]


@MASKINGS.register_module()
class ParallelMasking(MaskStrategy):
    """K disjoint parts that together see every patch once: EMAE, section III-B, Eq. 3-7; mask ratio (K-1)/K.

    Args:
        num_parts: K, at least 2; must divide the number of patches.
    """

    partitions = True

    def __init__(self, num_parts: int = 4):
        if num_parts < 2:
            raise ConfigError(f"num_parts={num_parts} is too small", "parallel masking needs at least 2 parts")
        self._num_parts = num_parts

    @property
    def num_parts(self) -> int:
        return self._num_parts

    def check(self, num_patches: int) -> None:
        if num_patches % self.num_parts:
            divisors = [k for k in range(2, num_patches + 1) if num_patches % k == 0]
            raise ConfigError(
                f"num_parts={self.num_parts} does not divide the number of patches, {num_patches}",
                f"use one of {divisors}, or another image or patch size",
            )

    def split(self, orders: Tensor) -> list[Tensor]:
        batch, _, patches = orders.shape
        self.check(patches)
        return [orders.reshape(batch, self.num_parts, patches // self.num_parts)]

    def groups(self, orders: Tensor, predicted_share: float = 1.0) -> list[PartGroup]:
        """As the base's; ``ids_hidden`` is made of K-1 runs, the visible patches of the other parts in turn.

        Of every run the same share is predicted, so that each predicted patch has K-1 predictions.
        """
        (ids_keep,) = self.split(orders)
        runs = ids_keep[:, :, : predicted(ids_keep.shape[-1], predicted_share)]
        hidden = [torch.cat([runs[:, :part], runs[:, part + 1 :]], dim=1) for part in range(self.num_parts)]
        return [PartGroup(ids_keep, torch.stack([run.flatten(1) for run in hidden], dim=1))]


@MASKINGS.register_module()
class PureRandomMasking(MaskStrategy):
    """K independent random masks per image; visible sets may overlap (EMAE paper, Table X b).

    Args:
        num_parts: K, at least 1.
        mask_ratio: share of the patches hidden from each part, in (0, 1).
    """

    def __init__(self, num_parts: int = 4, mask_ratio: float = 0.75):
        if num_parts < 1:
            raise ConfigError(f"num_parts={num_parts} is too small", "use at least 1")
        self.mask_ratio = _check_ratio(mask_ratio)
        self.num_orders = num_parts

    @property
    def num_parts(self) -> int:
        return self.num_orders

    def check(self, num_patches: int) -> None:
        _check_nonempty(f"mask_ratio={self.mask_ratio}", _num_visible(num_patches, self.mask_ratio), num_patches)

    def split(self, orders: Tensor) -> list[Tensor]:
        return [orders[:, :, : _num_visible(orders.shape[-1], self.mask_ratio)]]


@MASKINGS.register_module()
class ComplementaryMasking(MaskStrategy):
    """Two parts of unequal size: the visible patches of one are the hidden patches of the other (Table X d).

    Args:
        mask_ratio: share hidden from the first part; the second part sees exactly that share.
    """

    num_parts = 2

    def __init__(self, mask_ratio: float = 0.75):
        self.mask_ratio = _check_ratio(mask_ratio)

    def check(self, num_patches: int) -> None:
        _check_nonempty(f"mask_ratio={self.mask_ratio}", _num_visible(num_patches, self.mask_ratio), num_patches)

    def split(self, orders: Tensor) -> list[Tensor]:
        visible = _num_visible(orders.shape[-1], self.mask_ratio)
        return [orders[:, :, :visible], orders[:, :, visible:]]


def build_masking(spec: dict | MaskStrategy, num_patches: int) -> MaskStrategy:
    """A strategy from its config, checked against the number of patches.

    Raises:
        ConfigError: unknown strategy (the known ones are listed), wrong argument, or a split that is impossible.
    """
    if not isinstance(spec, MaskStrategy):
        spec = dict(spec)
        name = spec.pop("type", None)
        strategy = MASKINGS.get(str(name).removeprefix("emae_mm."))
        if strategy is None:
            raise ConfigError(f"unknown mask strategy {name!r}", f"use one of {sorted(MASKINGS.module_dict)}")
        try:
            spec = strategy(**spec)
        except TypeError as error:
            raise ConfigError(f"mask strategy {name}: {error}", "see the class's documented arguments") from error
    spec.check(num_patches)
    return spec
