"""Data sets, splits, augmentation, standardization and batches."""

from fastnet.data import cifar10, digits, folder, shapes10
from fastnet.data.augmentation import Augmentation
from fastnet.data.batches import Batch, Batches, permutation
from fastnet.data.dataset import Dataset, Split
from fastnet.data.loading import load
from fastnet.data.standardization import Standardization

__all__ = ["Augmentation", "Batch", "Batches", "Dataset", "Split", "Standardization", "cifar10", "digits", "folder",
           "load", "permutation", "shapes10"]
