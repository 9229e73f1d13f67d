"""The stack's noisy harmless messages, each by name, and nothing else.

Three ways lead to the screen: Python warnings, log records, and mmengine's ``print_log`` without a logger (it prints).
Each entry says which way its message goes and why nobody needs to read it. Data-loader workers that are forked inherit
the filters; a process started afresh calls :func:`silence_known_noise` itself.
"""

import builtins
import functools
import logging
import re
import warnings
from dataclasses import dataclass
from typing import Any

SILENCED_LEVEL = -1  # below every handler's level, NOTSET (0) included


@dataclass(frozen=True)
class Noise:
    """One harmless message.

    Attributes:
        name: what to call it.
        channel: ``'warning'``, ``'log'`` or ``'print'``.
        pattern: regular expression, matched from the beginning of the message.
        reason: why it is harmless.
        category: for a warning, its class.
    """

    name: str
    channel: str
    pattern: str
    reason: str
    category: type[Warning] = UserWarning


KNOWN_NOISE = (
    Noise("file-client", "log", r'"FileClient" will be deprecated in future\.', "mmengine's own use of its old name"),
    Noise(
        "hard-disk", "log", r'"HardDiskBackend" is the alias of "LocalBackend"', "mmengine's own use of its old name"
    ),
    Noise(
        "param-scheduler",
        "log",
        r"`save_param_scheduler` is True but `self\.param_schedulers`\s*is None",
        "a run without a learning-rate schedule has none to save",
    ),
    Noise("onedl", "print", r"Could not import OneDL", "data sets of a service this project does not use"),
    Noise("faster-coco-eval", "warning", r"faster_coco_eval is not installed", "pycocotools computes the metrics"),
    Noise(
        "broadcast-buffers",
        "warning",
        r"`broadcast_buffers` is deprecated",
        "mmengine passes it; its value is still obeyed",
        FutureWarning,
    ),
    Noise(
        "fsdp-state-dict",
        "warning",
        r"FSDP\.state_dict_type\(\) and FSDP\.set_state_dict_type\(\) are being deprecated",
        "mmengine's FSDPStrategy builds on them",
        FutureWarning,
    ),
    Noise("avg-non-ignore", "warning", r"Default ``avg_non_ignore`` is False", "the protocols' own choice"),
    Noise("reduce-zero-label", "warning", r"`reduce_zero_label` will be deprecated", "mmseg's own use of its old name"),
    Noise(
        "array-copy",
        "warning",
        r"__array__ implementation doesn't accept a copy keyword",
        "pycocotools' masks under numpy 2: a copy is made, which is right",
        DeprecationWarning,
    ),
)


def is_noise(message: str, channel: str) -> bool:
    """Whether ``message`` is one of the known harmless ones of that channel."""
    return any(noise.channel == channel and re.match(noise.pattern, message) for noise in KNOWN_NOISE)


def _quiet_records(factory):
    """A log record factory whose known noise is below every handler's level; other records are untouched."""

    @functools.wraps(factory)
    def make(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = factory(*args, **kwargs)
        if isinstance(record.msg, str) and is_noise(record.msg, "log"):
            record.levelno = SILENCED_LEVEL
        return record

    make.emae_quiet = True
    return make


def _quiet_print(*values: Any, **kwargs: Any) -> None:
    if not (values and isinstance(values[0], str) and is_noise(values[0], "print")):
        builtins.print(*values, **kwargs)


def silence_known_noise() -> None:
    """Keep the messages of :data:`KNOWN_NOISE` off the screen and out of the logs; a second call changes nothing.

    Loggers created later are covered too, since the filter sits where records are made.
    """
    for noise in KNOWN_NOISE:
        if noise.channel == "warning":
            warnings.filterwarnings("ignore", message=noise.pattern, category=noise.category)
    factory = logging.getLogRecordFactory()
    if not getattr(factory, "emae_quiet", False):
        logging.setLogRecordFactory(_quiet_records(factory))
    from mmengine.logging import logger as mmengine_logger

    # print_log without a logger calls print; this name shadows the built-in one in that module alone
    mmengine_logger.print = _quiet_print
