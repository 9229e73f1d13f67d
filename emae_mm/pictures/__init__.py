"""Pictures of what a transferred encoder does: plain functions on arrays that write PNG files (docs/pictures.md).

Nothing here knows the runner. Each module imports matplotlib on use, so that importing it costs nothing.
"""
