"""One command per transfer: an encoder, a task and data in; a record and its place among published results out.

``options.py`` has the command lines and imports nothing heavy; the rest loads when a command runs.
"""
