"""The command lines of ``emae-mm transfer`` and ``emae-mm evaluate``; nothing heavy is imported before one runs."""

from pathlib import Path
from typing import Annotated

import typer

from emae_mm.quiet import silence_known_noise

DataRoot = Annotated[Path | None, typer.Option(help="The task's data: an ImageNet, COCO or ADE20K folder.")]
Gpus = Annotated[int | None, typer.Option(min=1, help="GPUs, one process each. Default: one, or the CPU without.")]
Cpu = Annotated[bool, typer.Option("--cpu", help="Leave GPUs alone.")]
Processes = Annotated[int | None, typer.Option(min=1, help="With --cpu: processes that share the batch.")]
ConfigFile = Annotated[
    str | None, typer.Option("--config", help="A config of yours, or one below configs/, in place of the protocol's.")
]
WorkDir = Annotated[Path | None, typer.Option(help="Where everything is written. Default: named after the run.")]
CfgOptions = Annotated[
    list[str] | None, typer.Option(help="key.sub=value overriding the config; repeat for several. The record says so.")
]
Launcher = Annotated[str | None, typer.Option(help="slurm: start through srun.")]
Partition = Annotated[str, typer.Option(help="Slurm's partition.")]
PerNode = Annotated[int, typer.Option(min=1, help="With Slurm: GPUs of one node.")]


def transfer(
    checkpoint: Annotated[
        str, typer.Argument(help="The encoder: a file or folder in any supported format, timm:NAME, or random.")
    ],
    task: Annotated[
        str, typer.Option(help="knn, linear, finetune, maskrcnn, vitdet, vitdet-cascade, upernet or upernet-cae.")
    ],
    data_root: DataRoot = None,
    gpus: Gpus = None,
    cpu: Cpu = False,
    processes: Processes = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A smoke run of the whole way in minutes; its record is not ranked.")
    ] = False,
    config: ConfigFile = None,
    arch: Annotated[str | None, typer.Option(help="With 'random': its size (default ViT-B/16).")] = None,
    work_dir: WorkDir = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of everything random.")] = None,
    amp: Annotated[bool, typer.Option("--amp", help="Mixed precision: bfloat16 where the device has it.")] = False,
    compile: Annotated[bool, typer.Option("--compile", help="Compile the model with torch.compile.")] = False,
    fsdp: Annotated[bool, typer.Option("--fsdp", help="Share the model among the processes (FSDP).")] = False,
    activation_checkpointing: Annotated[
        bool, typer.Option("--activation-checkpointing", help="Compute activations anew in the backward pass.")
    ] = False,
    resample_patch_embed: Annotated[
        bool, typer.Option("--resample-patch-embed", help="Resample the patch embedding of another patch size.")
    ] = False,
    allow_missing: Annotated[
        list[str] | None, typer.Option(help="Encoder tensors that may be missing from the checkpoint, or left over.")
    ] = None,
    cfg_options: CfgOptions = None,
    launcher: Launcher = None,
    partition: Partition = "",
    gpus_per_node: PerNode = 8,
) -> None:
    """Transfer an encoder to one task under its published protocol; a second call resumes.

    Everything is checked before anything starts. Ends with the record and its place among published results.
    """
    silence_known_noise()  # before the imports, some of which make it
    from emae_mm.transfer.command import Request, transfer_command

    request = Request(
        checkpoint, task, data_root, quick, config, arch, work_dir, seed, tuple(cfg_options or ()),
        amp=amp, compile=compile, fsdp=fsdp, activation_checkpointing=activation_checkpointing,
        resample_patch_embed=resample_patch_embed, allow_missing=tuple(allow_missing or ()),
    )  # fmt: skip
    asked = dict(gpus=gpus, cpu=cpu, processes=processes, launcher=launcher, partition=partition)
    raise typer.Exit(transfer_command(request, dict(asked, gpus_per_node=gpus_per_node)))


def evaluate(
    run: Annotated[Path, typer.Argument(help="A finished run's work directory, or a complete checkpoint of a config.")],
    data_root: DataRoot = None,
    multi_scale: Annotated[
        bool, typer.Option("--multi-scale", help="Segmentation: several scales, and mirrored.")
    ] = False,
    gpus: Gpus = None,
    cpu: Cpu = False,
    processes: Processes = None,
    config: ConfigFile = None,
    work_dir: WorkDir = None,
    cfg_options: CfgOptions = None,
    launcher: Launcher = None,
    partition: Partition = "",
    gpus_per_node: PerNode = 8,
) -> None:
    """Evaluate a finished transfer again, training nothing; ends with a record and its place."""
    silence_known_noise()
    from emae_mm.transfer.evaluate import evaluate_command

    asked = dict(gpus=gpus, cpu=cpu, processes=processes, launcher=launcher, partition=partition)
    options = dict(data_root=data_root, config=config, work_dir=work_dir, cfg_options=tuple(cfg_options or ()))
    status = evaluate_command(run, dict(asked, gpus_per_node=gpus_per_node), multi_scale=multi_scale, **options)
    raise typer.Exit(status)
