"""Layers, containers, initialisers and the table of models."""

from fastnet.nn.fuse import fuse

__all__ = ["fuse"]
