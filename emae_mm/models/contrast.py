"""The contrastive loss between two views of the same images, with negatives from all processes."""

import torch
import torch.distributed.nn
import torch.nn.functional as F
from mmengine.dist import get_rank, get_world_size
from torch import Tensor

from emae_mm.models.pairwise import full_precision


def contrastive_loss(first: Tensor, second: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Symmetric normalised-temperature cross entropy (NT-Xent, SimCLR) between two views of the same images.

    Each view is to be told which view is its partner among the views, of either kind, of all images of all processes.
    The loss is the mean over this process's own views. Gradients flow into what other processes contributed, so that
    gradients averaged over the processes (as DDP does) are those of one process that holds the whole batch.

    Args:
        first: (B, C), one view of each image; normalised here.
        second: (B, C), the other; row i is of the same image.
        temperature: what cosine similarities are divided by, > 0.

    Returns:
        the loss, and without a gradient the share of own views whose most similar view is their partner; both scalars.
    """
    own = F.normalize(full_precision(torch.stack([first, second])), dim=-1)
    everyone = own.unsqueeze(0) if get_world_size() == 1 else gather_with_gradients(own)
    batch = first.shape[0]
    with torch.autocast(first.device.type, enabled=False):  # half precision cannot tell close similarities apart
        similarity = own.flatten(0, 1) @ everyone.flatten(0, 2).T / temperature
    # columns are ordered by process, view, image: where this process's 2B views stand among them
    place = get_rank() * 2 * batch + torch.arange(2 * batch, device=own.device)
    partner = place.roll(batch)
    similarity = similarity.scatter(1, place.unsqueeze(1), float("-inf"))  # a view is not compared with itself
    with torch.no_grad():
        top1 = (similarity.argmax(dim=1) == partner).to(similarity.dtype).mean()
    return F.cross_entropy(similarity, partner), top1


@torch.compiler.disable  # communication stays outside of compiled code
def gather_with_gradients(tensor: Tensor) -> Tensor:
    """Equally large tensors of all W processes: (...) -> (W, ...); every process's gradients reach their tensor."""
    return torch.stack(torch.distributed.nn.functional.all_gather(tensor))
