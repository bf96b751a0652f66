"""A whole epoch from uint8 images in memory: shuffled, cropped, flipped, standardised, and a step on every batch.

Ours is the loop of `fastnet train`. PyTorch's has no slow loader: the bordered images are one tensor, and all crops and
flips of a batch are a single gather of its pixels, which lie as its layout wants them.
"""

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

import fastnet as fn
from fastnet.arrays import single_threaded_blas
from fastnet.bench.workload import Workload
from fastnet.nn.layer import Shape

if TYPE_CHECKING:
    import torch

PAD = 4  # border of the random crop
CLASSES = 10


def random_images(count: int, shape: Shape) -> fn.data.Split:
    """So many images of noise."""
    rng = np.random.default_rng(0)
    return fn.data.Split(rng.integers(0, 256, (count, *shape), np.uint8), rng.integers(0, CLASSES, count),
                         np.arange(count))


def rivals(workload: Workload, torch: bool) -> dict[str, Callable[[], object]]:
    """{name: an epoch}: ours, our batches without the steps, and PyTorch's variants on twins of the model."""
    model, flat = workload.build(), workload.flat
    split = random_images(workload.images, workload.image)
    standardization = fn.data.Standardization.fit(split.images, "channel")
    theirs: dict[str, Callable[[], object]] = {}
    if torch:
        from fastnet.bench import peer

        for variant in peer.variants(not flat):
            twin = peer.twin(model, workload.input_shape)
            theirs[variant] = _theirs(twin, variant, split, standardization, flat, workload.batch_size)
    batches = fn.data.Batches(split, standardization, workload.batch_size,
                              augmentation=fn.data.Augmentation(pad=PAD, horizontal_flip=True))
    step = fn.TrainStep(model, fn.SGD(lr=1e-3, momentum=0.9))
    epochs = itertools.count()

    def ours() -> None:
        epoch = next(epochs)
        with single_threaded_blas():
            for x, labels, samples in batches.epoch(epoch):
                float(step(x, labels, samples, epoch))

    def ours_without_steps() -> None:
        for _ in batches.epoch(next(epochs)):
            pass

    return {"fastnet": ours, "batches": ours_without_steps, **theirs}


def _theirs(twin: "torch.nn.Module", variant: str, split: fn.data.Split, standardization: fn.data.Standardization,
            flat: bool, batch_size: int) -> Callable[[], object]:
    import torch

    from fastnet.bench import peer

    twin = twin if flat else twin.to(memory_format=peer.layout(variant))  # type: ignore[call-overload]
    step = peer.step(twin, variant)
    labels = torch.from_numpy(split.labels)
    make = batch_maker(split.images, standardization)

    def run() -> None:
        for at in torch.randperm(len(labels)).split(batch_size):
            x = make(at)
            x = x.flatten(1) if flat else x.permute(0, 3, 1, 2).contiguous(memory_format=peer.layout(variant))
            step(x, labels[at])

    return run


def batch_maker(images: np.ndarray, standardization: fn.data.Standardization) -> Callable:
    """A function from positions (B,) to augmented, standardised images, a float32 tensor (B, H, W, C)."""
    import torch

    count, height, width, channels = images.shape
    rows, columns = height + 2 * PAD, width + 2 * PAD
    bordered = torch.nn.functional.pad(torch.from_numpy(images), (0, 0, PAD, PAD, PAD, PAD))
    pixels = bordered.reshape(count * rows * columns, channels)
    mean, scale = (torch.from_numpy(a) for a in standardization.constants((height, width, channels)))

    def make(at: torch.Tensor) -> torch.Tensor:
        size = (len(at), 1)
        down = torch.randint(0, 2 * PAD + 1, size) + torch.arange(height)
        across = torch.arange(width).expand(len(at), width)
        across = torch.where(torch.rand(size) < 0.5, across.flip(1), across) + torch.randint(0, 2 * PAD + 1, size)
        index = ((at[:, None] * rows + down) * columns)[:, :, None] + across[:, None, :]
        picked = pixels.index_select(0, index.flatten()).view(len(at), height, width, channels)
        return picked.float().sub_(mean).mul_(scale)

    return make
