"""Known noise is silent, everything else is heard."""

import logging
import warnings

import pytest
from mmengine.logging import MMLogger, print_log

from emae_mm.quiet import KNOWN_NOISE, silence_known_noise

# What the libraries emit, word by word; keyed by the entry that must silence it.
MESSAGES = {
    "file-client": '"FileClient" will be deprecated in future. Please use io functions in https://example.org',
    "hard-disk": '"HardDiskBackend" is the alias of "LocalBackend" and the former will be deprecated in future.',
    "param-scheduler": "`save_param_scheduler` is True but `self.param_schedulers` is None, so skip saving parameter "
    "schedulers",
    "onedl": "Could not import OneDL. Skipping OneDL datasets.",
    "faster-coco-eval": "faster_coco_eval is not installed, metrics will not be computed. Please install it",
    "broadcast-buffers": "`broadcast_buffers` is deprecated. Use `forward_sync_buffers` instead",
    "fsdp-state-dict": "FSDP.state_dict_type() and FSDP.set_state_dict_type() are being deprecated. Please use APIs",
    "avg-non-ignore": "Default ``avg_non_ignore`` is False, if you would like to ignore the certain label",
    "reduce-zero-label": "`reduce_zero_label` will be deprecated, if you would like to ignore the zero label",
    "array-copy": "__array__ implementation doesn't accept a copy keyword, so passing copy=False failed.",
}


@pytest.fixture(autouse=True)
def _restore():
    from mmengine.logging import logger as module

    factory = logging.getLogRecordFactory()
    printed = vars(module).pop("print", None)
    logging.setLogRecordFactory(logging.LogRecord)  # runs of other tests in this process have silenced it already
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        yield
    logging.setLogRecordFactory(factory)
    vars(module).pop("print", None)
    if printed is not None:
        module.print = printed


def emit(channel: str, text: str, category: type[Warning], capsys) -> str:
    """Say ``text`` by the way of that channel; what reached the listener."""
    if channel == "warning":
        # not catch_warnings(record=True): it would be the one to hear what the filters already dropped
        heard = []
        previous, warnings.showwarning = warnings.showwarning, lambda message, *rest, **kw: heard.append(str(message))
        try:
            warnings.warn(text, category, stacklevel=1)
        finally:
            warnings.showwarning = previous
        return "".join(heard)
    logger = MMLogger.get_instance("test_quiet")
    capsys.readouterr()
    print_log(text, logger=logger if channel == "log" else None, level=logging.WARNING)
    captured = capsys.readouterr()
    return captured.out + captured.err


def test_every_entry_has_its_message():
    assert {noise.name for noise in KNOWN_NOISE} == set(MESSAGES)


@pytest.mark.parametrize("noise", KNOWN_NOISE, ids=lambda noise: noise.name)
def test_each_known_message_is_heard_before_and_silent_after(noise, capsys):
    MMLogger._instance_dict.pop("test_quiet", None)  # a new stream handler, on this test's captured stream
    text = MESSAGES[noise.name]
    assert text[:20] in emit(noise.channel, text, noise.category, capsys)
    silence_known_noise()
    silence_known_noise()
    assert emit(noise.channel, text, noise.category, capsys) == ""


@pytest.mark.parametrize("noise", KNOWN_NOISE, ids=lambda noise: noise.name)
def test_other_messages_are_still_heard(noise, capsys):
    MMLogger._instance_dict.pop("test_quiet", None)
    silence_known_noise()
    other = "loss is NaN; " + MESSAGES[noise.name]
    assert "loss is NaN" in emit(noise.channel, other, noise.category, capsys)


def test_a_warning_of_the_same_words_and_another_class_is_still_heard(capsys):
    silence_known_noise()
    text = MESSAGES["avg-non-ignore"]
    assert emit("warning", text, RuntimeWarning, capsys) == text
