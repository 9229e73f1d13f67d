#!/usr/bin/env python
"""Train one config. See ``--help``."""

from emae_mm.engine.command import train_command

if __name__ == "__main__":
    train_command()
