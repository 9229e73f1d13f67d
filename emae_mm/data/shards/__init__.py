"""Images in tar shards, as the ``webdataset`` library makes and reads them, with access to every sample by its number.

A stream of shards gives exact resume and equal work only at a price: a resumed run must read again what it had read,
and processes whose shards differ in size run out of samples at different steps. Here the headers of all shards are read
once into an index (:mod:`.index`), after which a sample is one read at a known place (:mod:`.reading`). So a shard's
sample is what a file is in a folder: any sampler of mmengine may deal them out, the number of samples of an epoch is
known, and resuming costs nothing. What is left of streaming is its order (:mod:`.order`): shards in random order, a few
at a time, shuffled within those, so that a disk serves each shard once an epoch and from one place.

The conventions are webdataset's own functions: how patterns are expanded (:mod:`.patterns`), and which members of a tar
file make up a sample (:mod:`.index`). Whatever webdataset writes or reads is read here as the same samples.
"""
