"""torchrun without its traceback: the processes have said what went wrong, and their exit status is passed on."""

import logging
import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

if __name__ == "__main__":
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        main()
    except ChildFailedError as error:
        first = min(error.failures.values(), key=lambda failure: failure.timestamp)
        sys.exit(first.exitcode if first.exitcode > 0 else 1)
    except SignalException as signalled:
        sys.exit(128 + signalled.sigval)
