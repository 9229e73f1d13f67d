"""LARS for linear probes: timm's, whose update is that of the MAE release where the weight decay is 0.

The momentum buffer holds updates without the learning rate (mmpretrain's LARS multiplies it in, which differs under
every schedule that changes the rate). ``always_adapt=True`` applies the trust ratio without weight decay; parameters of
at most one dimension are exempt by ``paramwise_cfg=dict(options_1d=dict(always_adapt=False))`` of
:class:`~emae_mm.engine.layer_decay.LayerDecayOptimWrapperConstructor`.
"""

from timm.optim.lars import Lars

from emae_mm.registry import OPTIMIZERS

OPTIMIZERS.register_module(name="LARS", module=Lars)
