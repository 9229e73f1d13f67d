"""The weights of the tokenizer that CAE takes its targets from: chosen explicitly, read without running code."""

from pathlib import Path

import torch
from torch import nn

from emae_mm.checkpoints.reading import read_checkpoint
from emae_mm.errors import CheckpointError, ConfigError

RANDOM = "random"

HOW_TO_GET_WEIGHTS = (
    "CAE predicts the codes of OpenAI's DALL-E encoder, whose weights are not part of this project. Either take "
    "dalle_encoder.pth as converted by OpenMMLab (the address stands in mmpretrain's configs/cae), or take encoder.pkl "
    "from github.com/openai/DALL-E and, where that package is installed and trusted, keep only its tensors: "
    "torch.save(torch.load('encoder.pkl', weights_only=False).state_dict(), 'dalle_encoder.pth'). "
    "Then give --cfg-options tokenizer=dalle_encoder.pth; 'random' is an untrained tokenizer, for trying things out"
)


def require_tokenizer(source: str) -> None:
    """Make sure that a tokenizer has been chosen: a file that exists, or ``"random"``.

    Raises:
        ConfigError: nothing chosen, or no such file; says where the weights come from and how to give them.
    """
    if not source:
        raise ConfigError("this config needs a tokenizer, but 'tokenizer' is not set", HOW_TO_GET_WEIGHTS)
    if source != RANDOM and not Path(source).is_file():
        raise ConfigError(f"tokenizer={source!r} is no file", HOW_TO_GET_WEIGHTS)


def load_tokenizer(tokenizer: nn.Module, source: str) -> None:
    """Load weights into a DALL-E encoder, in place; ``"random"`` keeps its random ones.

    Args:
        tokenizer: mmpretrain's ``DALLEEncoder`` or a subclass; its names are those of OpenAI's encoder.
        source: a torch file or ``.safetensors`` file of the state dict, or ``"random"``.

    Raises:
        ConfigError: nothing chosen, or no such file.
        CheckpointError: unreadable, wants to run code when loaded (OpenAI's own pickle does), or does not fit.
    """
    require_tokenizer(source)
    if source == RANDOM:
        centre(tokenizer)
        return
    try:
        tensors = read_checkpoint(source).tensors
    except CheckpointError as error:
        raise CheckpointError(error.problem, HOW_TO_GET_WEIGHTS) from error
    own = tokenizer.state_dict()
    problems = [f"{name}: missing from the file" for name in own if name not in tensors]
    problems += [f"{name}: not in the tokenizer" for name in tensors if name not in own]
    problems += [
        f"{name}: file {tuple(tensor.shape)}, tokenizer {tuple(own[name].shape)}"
        for name, tensor in tensors.items()
        if name in own and own[name].shape != tensor.shape
    ]
    if problems:
        raise CheckpointError(
            f"{source} does not fit the tokenizer ({len(problems)} mismatches), first of all {problems[0]}",
            HOW_TO_GET_WEIGHTS,
        )
    tokenizer.load_state_dict(tensors)


@torch.no_grad()
def centre(tokenizer: nn.Module) -> None:
    """Make mid-grey the origin of a random DALL-E encoder, in place; else it gives nearly every patch the same code."""
    first = tokenizer.blocks.input
    first.b.copy_(-0.5 * first.w.sum((1, 2, 3)))  # map_pixels puts mid-grey at 0.5
