#!/usr/bin/env bash
# Evaluate one config on several processes:
#   tools/dist_test.sh CONFIG NUM_PROCESSES [options of tools/test.py]
# Machines, ports and devices as in dist_train.sh.
set -euo pipefail

SCRIPT=test.py exec "$(dirname "$0")/dist_train.sh" "$@"
