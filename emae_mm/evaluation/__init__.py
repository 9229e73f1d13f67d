"""Measurements on tensors: k-NN, reconstructions. Nothing here knows the runner."""
