#!/usr/bin/env python
"""Evaluate one config on its test data. See ``--help``."""

from emae_mm.engine.command import test_command

if __name__ == "__main__":
    test_command()
