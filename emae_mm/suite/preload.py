"""What the server that forks the stages' processes imports first; its children then start at once."""

from importlib import import_module

from emae_mm.quiet import silence_known_noise

silence_known_noise()  # before the imports, some of which make it
import_module("emae_mm.suite.work")
