"""Data: image loading with a policy for broken files, data sets that read their classes from the data, checks before a
run, and the embedded demonstration set.

Nothing heavy is imported here. The registries of :mod:`emae_mm.registry` import ``loading``, ``imagefolder``, ``coco``,
``ade20k``, ``openimages`` and ``shards`` when one of their classes is first looked up; ``classes``, ``checks`` and
``demo`` are plain functions.
"""
