"""Shows that a gradient check can fail: gradients corrupted on purpose have to be caught by the same comparison.

Three corruptions a gradient, each the smallest form of a mistake that people make: one entry changed a little, the
contribution of one sample missing, two entries exchanged.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

PERTURBATION = 1e-4  # of the largest entry


def check_is_sharp(gradients: Mapping[str, np.ndarray], caught: Callable[[str, np.ndarray], bool], *,
                   without_sample: Callable[[int], Mapping[str, np.ndarray]] | None = None, samples: int = 0,
                   seen: Mapping[str, np.ndarray] | None = None, scale: float = 1.0, size: float = PERTURBATION,
                   seed: int = 0) -> list[str]:
    """Corrupt each gradient in three ways; return one line for each corruption that `caught` did not notice.

    `gradients`: name -> the right gradient, float64 on the host.
    `caught(name, gradient)`: the comparison under test; True where it finds the gradient wrong.
    `without_sample(n)`: the gradients with sample n's contribution missing, n in 0..samples-1.
    `seen`: name -> the flat indices to change, for a check that looks at some entries only; all where it is missing.
    `scale` stands in for the largest entry of a gradient that is zero; `size` is the small change, relative.

    A corruption that changes less than `size` (two equal entries, a sample without a contribution) is passed over.
    """
    rng = np.random.default_rng(seed)
    escaped = []
    for name, gradient in gradients.items():
        indices = np.arange(gradient.size) if seen is None or name not in seen else seen[name]
        corrupted = [_changed(gradient, indices, scale, size, rng), *_swapped(gradient, indices, size)]
        if without_sample is not None:
            corrupted += _dropped(name, gradient, without_sample, samples, indices, scale, size, rng)
        escaped += [f"{name}: {what} went unnoticed" for what, wrong in corrupted if not caught(name, wrong)]
    return escaped


def _changed(gradient, indices, scale, size, rng):
    wrong = gradient.copy()
    index = int(rng.choice(indices))
    largest = float(np.max(np.abs(gradient)))
    wrong.flat[index] += size * (largest if largest > 0 else scale)
    return f"entry {_at(gradient, index)} changed by {size:.0e} of the largest", wrong


def _swapped(gradient, indices, size) -> Iterator[tuple[str, np.ndarray]]:
    values = gradient.flat[indices]
    low, high = int(indices[np.argmin(values)]), int(indices[np.argmax(values)])
    if gradient.flat[high] - gradient.flat[low] > size * np.max(np.abs(gradient)):
        wrong = gradient.copy()
        wrong.flat[low], wrong.flat[high] = gradient.flat[high], gradient.flat[low]
        yield f"the exchange of entries {_at(gradient, low)} and {_at(gradient, high)}", wrong


def _dropped(name, gradient, without_sample, samples, indices, scale, size, rng) -> Iterator[tuple[str, np.ndarray]]:
    # Some samples contribute nothing (relu on negative inputs): take the first, in random order, that does.
    largest = np.max(np.abs(gradient)) or scale
    for sample in rng.permutation(samples):
        wrong = without_sample(int(sample))[name]
        if np.max(np.abs(wrong - gradient).flat[indices]) > size * largest:
            yield f"the missing contribution of sample {sample}", wrong
            return


def _at(gradient, index):
    return [int(i) for i in np.unravel_index(index, gradient.shape)]
