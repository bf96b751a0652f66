"""Data: CIFAR-10 and a generated stand-in for it, splits, standardization and batches."""

from fastnet.data import cifar10, shapes10
from fastnet.data.batches import Batch, Batches, permutation
from fastnet.data.dataset import Dataset, Split
from fastnet.data.loading import load
from fastnet.data.standardization import Standardization

__all__ = ["Batch", "Batches", "Dataset", "Split", "Standardization", "cifar10", "load", "permutation", "shapes10"]
