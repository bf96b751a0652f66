"""The first convolution reads the data set: its kernels on the emulator, and the way of a batch to them."""

import numpy as np
import pytest
from emulator import engine
from emulator.arrays import emulated
from test_emulated_training import no_figures, vector  # noqa: F401
from tiny import bits, dataset

import fastnet as fn
from fastnet import backend
from fastnet.arrays import accumulator
from fastnet.check.contract import same_bits
from fastnet.data import Augmentation, Batches, Standardization
from fastnet.functions import augment_batch
from fastnet.kernels.cuda import _launch, augment_conv2d, conv2d
from fastnet.nn.layer import INFERENCE
from fastnet.train import loop
from fastnet.train.nonfinite import NonFiniteError
from fastnet.unmade import Unmade

engine.install()
ml_dtypes = pytest.importorskip("ml_dtypes")
TYPES = {"float": np.float32, "double": np.float64, "half": np.float16, "bf16": ml_dtypes.bfloat16}
NARROW = pytest.mark.parametrize("dtype", [TYPES["half"], TYPES["bf16"]], ids=["half", "bf16"])
REFERENCE = backend.module("reference", "augment_conv2d")
BOTH = {"pad": 2, "horizontal_flip": True, "vertical_flip": True}


def arrays(x_shape, w_shape, dtype, seed=0):
    """Standardized levels are -2..2, as are weights, so that all sums are whole numbers which every type holds."""
    rng, wide = np.random.default_rng([seed, *x_shape]), accumulator(dtype)
    images = rng.integers(0, 5, (x_shape[0] + 3, *x_shape[1:]), dtype=np.uint8)
    indices, samples = rng.permutation(len(images))[: x_shape[0]], rng.integers(0, 2**31, x_shape[0])
    return [images, indices, samples, np.array([2**32 - 1]), np.full(x_shape[1:], 2, wide), np.ones(x_shape[1:], wide),
            rng.integers(-1, 2, w_shape).astype(wide), rng.integers(-2, 3, w_shape[3]).astype(wide)]


def passes(module, given, dy, **options):
    y, cache = module.forward(*given, seed=2**63 + 5, **options)
    return [y, *module.backward(dy(y), cache, (False,) * 6 + (True, True))[6:]]


def exact(given, **options):
    """What the reference computes in float64, with whole numbers as dy."""
    return passes(REFERENCE, [a if a.dtype.kind in "iu" else a.astype(np.float64) for a in given],
                  lambda y: np.random.default_rng(1).integers(-2, 3, y.shape).astype(np.float64), **options)


def ours(given, dtype, **options):
    dy = lambda y: emulated(np.random.default_rng(1).integers(-2, 3, y.shape).astype(dtype))  # noqa: E731
    return passes(augment_conv2d, list(map(emulated, given)), dy, dtype=dtype, **options)


SHAPES = [
    ((3, 9, 7, 3), (3, 3, 3, 8), {"pad": 1}), ((1, 12, 8, 3), (3, 3, 3, 72), {"pad": 1}),
    ((5, 4, 4, 3), (3, 3, 3, 64), {"pad": 1, "stride": 2}), ((2, 9, 8, 1), (5, 5, 1, 16), {"pad": (2, 0)}),
    ((3, 8, 9, 2), (2, 3, 2, 40), {"dilation": (2, 1), "stride": (1, 3)}),
    ((3, 9, 8, 3), (5, 5, 3, 6), {}), ((2, 7, 9, 4), (3, 3, 4, 260), {"pad": 1})]


@pytest.mark.parametrize("augmentation", [{}, BOTH], ids=["plain", "augmented"])
@pytest.mark.parametrize(("x_shape", "w_shape", "options"), SHAPES, ids=[str(row[1:]) for row in SHAPES])
@pytest.mark.parametrize("dtype", TYPES.values(), ids=TYPES)
def test_exact_on_integers(dtype, x_shape, w_shape, options, augmentation, monkeypatch):
    """Odd batches, tails of tiles and bands, several bands in a part, grids that go round; every type, both kernels."""
    monkeypatch.setattr(_launch, "MOST_BLOCKS", 3)
    monkeypatch.setattr(augment_conv2d, "FORWARD_PIXELS", 20)
    monkeypatch.setattr(augment_conv2d, "DW_PIXELS", 40)
    monkeypatch.setattr(augment_conv2d, "DW_BLOCKS", 2)
    given = arrays(x_shape, w_shape, dtype)
    found = ours(given, dtype, augmentation=augmentation, **options)
    for name, a, e in zip(("y", "dw", "db"), found, exact(given, augmentation=augmentation, **options), strict=True):
        assert a.dtype == (dtype if name == "y" else accumulator(dtype)), name
        assert np.abs(e).max() < (256 if name == "y" else 1 << 20), name
        np.testing.assert_array_equal(a.get().astype(np.float64), e, name)


def real(dtype, w_shape, batch=3, size=(10, 9)):
    """As images are: levels 0..255, and standardized ones about as large as one."""
    rng, wide, shape = np.random.default_rng(4), accumulator(dtype), (*size, w_shape[2])
    return [rng.integers(0, 256, (6, *shape), dtype=np.uint8), rng.integers(0, 6, batch), np.arange(batch) + 40_000,
            np.array([7]), rng.normal(120, 20, shape).astype(wide), rng.uniform(0.01, 0.02, shape).astype(wide),
            (rng.standard_normal(w_shape) / 5).astype(wide), rng.standard_normal(w_shape[3]).astype(wide)]


@pytest.mark.parametrize("w_shape", [(3, 3, 3, 16), (5, 5, 3, 6)], ids=str)
@pytest.mark.parametrize("dtype", TYPES.values(), ids=TYPES)
def test_plain_sums_have_the_bits_of_the_convolution_of_a_batch(dtype, w_shape, monkeypatch):
    """x is rounded where the batch would be stored, and the order of the sums is that of the taps."""
    monkeypatch.setattr(augment_conv2d, "DEPTH", 0)  # no tensor cores
    given = list(map(emulated, real(dtype, w_shape)))
    y, _ = augment_conv2d.forward(*given, seed=9, augmentation=BOTH, pad=1, dtype=dtype)
    x = backend.call("augment_batch", *given[:3], *given[4:6], key=(9, 7), dtype=dtype, **BOTH)
    expected, _ = conv2d.forward(x, *given[6:], pad=1)
    assert same_bits(y, expected)


@NARROW
def test_tensor_cores_keep_the_limits(dtype):
    """Norm of the error over the norm, against float64 on the numbers of that type; the same bits in any order."""
    given = real(dtype, (3, 3, 3, 64))
    host = [a if a.dtype.kind in "iu" else a.astype(np.float64) for a in given]
    x = augment_batch.run(*given[:3], *given[4:6], key=(9, 7), dtype=dtype, **BOTH).astype(np.float64)
    dy = np.random.default_rng(2).standard_normal((*x.shape[:3], 64)).astype(dtype)
    reference = backend.module("reference", "conv2d")
    e, cache = reference.forward(x, given[6].astype(dtype).astype(np.float64), host[7], pad=1)
    expected = [e, *reference.backward(dy.astype(np.float64), cache)[1:]]
    runs = []
    for seed, copies in enumerate(engine.COPIES):
        with engine.schedule(seed, copies):
            y, cache = augment_conv2d.forward(*map(emulated, given), seed=9, augmentation=BOTH, pad=1, dtype=dtype)
            shifted = emulated(np.concatenate([dy.ravel()[:1], dy.ravel()]))[1:].reshape(dy.shape)
            runs.append([y, *augment_conv2d.backward(shifted, cache, (False,) * 6 + (True, True))[6:]])
    for a, other, another, e, limit in zip(*runs, expected, (4e-4 if dtype == np.float16 else 2.5e-3, 1e-4, 1e-4),
                                           strict=True):
        assert same_bits(a, other) and same_bits(a, another)
        assert np.linalg.norm(a.get().astype(np.float64) - e) <= limit * np.linalg.norm(e)


def test_tensor_cores_make_no_nan_of_infinity():
    """The entries that fill a window up to 32 count for nothing, whatever stands where they are read."""
    given = real(np.float16, (3, 3, 3, 8))
    given[5][0, 0, 0] = 1e6  # times a level less its mean: more than float16 holds
    y, _ = augment_conv2d.forward(*map(emulated, given), seed=9, pad=1, dtype=np.float16)
    infinite = np.zeros(y.shape, bool)
    infinite[:, :2, :2] = True
    np.testing.assert_array_equal(np.isinf(y.get()), infinite)
    assert np.isfinite(y.get()[~infinite]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_an_index_that_is_no_image_makes_its_sample_nan(dtype):
    given = real(dtype, (3, 3, 3, 16), batch=4)
    given[1][1:3] = 6, -1
    y, _ = augment_conv2d.forward(*map(emulated, given), seed=9, pad=1, dtype=dtype)
    wrong = np.isnan(y.get().astype(np.float32))
    assert wrong.all(axis=(1, 2, 3)).tolist() == wrong.any(axis=(1, 2, 3)).tolist() == [False, True, True, False]


def test_what_the_kernels_take():
    given = list(map(emulated, real(np.float32, (3, 3, 3, 16))))

    def taken(*changed, **options):
        return backend.pair("augment_conv2d", *(changed or given), **{"seed": 9} | options) is augment_conv2d

    assert taken() and taken(dtype="float16") and taken(augmentation=BOTH) and taken(conv_algorithm="direct")
    assert not taken(augmentation={"cutout": 2}) and not taken(augmentation={"pad": 9}) and not taken(groups=3)
    assert not taken(dtype="float64") and not taken(dilation=8) and not taken(*map(emulated, real("f8", (3, 3, 3, 4))),
                                                                             dtype="float32")
    wide = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in given]
    assert taken(*wide) and not taken(*given[:6], wide[6])
    large = real(np.float32, (3, 3, 3, 16), size=(2, 5000))
    assert not taken(*map(emulated, large))  # one row and those beside it are more than shared memory holds


# --- the way of a batch ---

pytestmark = pytest.mark.usefixtures("emulated_device")


def stem(*after, kernel=3, outputs=16, dtype="float32", device="emulated"):
    layers = after or (fn.ReLU(), fn.MaxPool2d(2), fn.Flatten(), fn.Linear(16 * outputs, 10))
    if after == ("norm",):
        layers = (fn.BatchNorm(outputs), fn.ReLU(), fn.GlobalAvgPool(), fn.Linear(outputs, 10))
    inner = fn.Sequential([fn.Conv2d(3, outputs, kernel, pad=kernel // 2), *layers[:2]])
    return fn.Sequential([inner, *layers[2:]], seed=3, dtype=dtype, device=device)


def train(model, made=False, steps=None, **options):
    """Two epochs of `fit`, by unmade batches or by arrays: its history, weights, and the functions that were run."""
    used, pair = set(), backend.pair
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "pair", lambda name, *a, **o: used.add(name) or pair(name, *a, **o))
        if made:
            patch.setattr(loop, "Batches", lambda *a, unmade, **o: Batches(*a, **o))
        run = fn.fit(model, dataset(22, 0, 5), fn.SGD(momentum=0.9), fn.schedules.constant(0.02), **{
            "epochs": 2, "batch_size": 8, "seed": 5, "verbose": False,
            "augmentation": Augmentation(pad=1, horizontal_flip=True)} | options)
    return [line["train_loss"] for line in run.history], vector(run.model), used


@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1e-6), ("float64", 1e-14), ("float16", 5e-3),
                                              ("bfloat16", 2e-2)])
@pytest.mark.parametrize("augmentation", [None, Augmentation(pad=1, horizontal_flip=True)], ids=["plain", "augmented"])
def test_training_is_that_of_the_batches_as_arrays(dtype, limit, augmentation):
    """22 images in batches of 8: a smaller last one."""
    losses, weights, used = train(stem("norm", dtype=dtype), augmentation=augmentation)
    expected, their_weights, theirs = train(stem("norm", dtype=dtype), made=True, augmentation=augmentation)
    assert "augment_conv2d" in used and "augment_conv2d" not in theirs
    assert not {"augment_batch"} & used and ("augment_batch" in theirs) == (augmentation is not None)
    np.testing.assert_allclose(losses, expected, rtol=limit)
    start = vector(stem("norm", dtype=dtype))
    way = np.linalg.norm(their_weights - start)
    assert way > 0.01 * np.linalg.norm(start)
    assert np.linalg.norm(weights - their_weights) <= 20 * limit * way


@pytest.mark.parametrize(("model", "options"), [
    (lambda: stem("norm"), {"augmentation": Augmentation(cutout=3)}),
    (lambda: stem("norm"), {"augmentation": Augmentation(resized_crop=(0.5, 1.0))}),
    (lambda: stem(), {}),  # fused with what follows
    (lambda: fn.Sequential([fn.Linear(192, 10)], device="emulated"), {}),
], ids=["cutout", "resized crop", "pooled", "linear"])
def test_others_get_arrays(model, options):
    *found, used = train(model(), epochs=1, **options)
    *expected, theirs = train(model(), made=True, epochs=1, **options)
    assert used - {"augment_conv2d"} == theirs
    assert bits(dict(enumerate(map(np.array, found)))) == bits(dict(enumerate(map(np.array, expected))))


def unmade_batches(device="emulated", per="channel", **options):
    split = dataset().train
    return Batches(split, Standardization.fit(split.images, per), 8, seed=4, device=device, unmade=True,
                   augmentation=Augmentation(pad=1, vertical_flip=True), **options)


def test_batches_are_handed_out_unmade_only_on_a_device():
    arrays = list(unmade_batches("cpu").epoch(2, 1))
    for batch, expected in zip(unmade_batches().epoch(2, 1), arrays, strict=True):
        assert isinstance(batch.x, Unmade) and isinstance(expected.x, np.ndarray)
        assert (len(batch.x), batch.x.shape, batch.x.ndim) == (len(expected.x), expected.x.shape, 4)
        for ours, theirs in ((batch.x.made(), expected.x), (batch.x[2:5].made(), expected.x[2:5]),
                             (batch.labels, expected.labels), (batch.samples, expected.samples)):
            np.testing.assert_array_equal(ours.get(), theirs)


def test_a_recorded_step_reads_the_samples_and_the_epoch_of_each_batch(monkeypatch):
    def trained(graph):
        step = fn.TrainStep(stem("norm"), fn.SGD(0.05, momentum=0.9), graph=graph)
        losses = [float(step(*batch, epoch)) for batches in (unmade_batches(), unmade_batches(per="pixel"))
                  for epoch in range(3) for batch in batches.epoch(epoch, 4)]
        return losses, bits({key: a.get() for key, a in step.model.state().items()}), step

    *ordinary, _ = trained(False)
    *replayed, step = trained(True)
    assert ordinary == replayed and len(set(ordinary[0])) == len(ordinary[0])
    assert [form.replay is not None for form in step._graphed._forms.values()] == [True] * 4
    for missed in ("indices", "samples", "epoch"):
        filled = set()

        def fill(x, everything, other, missed=missed, filled=filled):
            for name in ("indices", "samples", "epoch"):
                if name != missed or id(x) not in filled:
                    getattr(x, name)[everything] = getattr(other, name)
            filled.add(id(x))

        with monkeypatch.context() as patch:
            patch.setattr(Unmade, "__setitem__", fill)
            assert trained(True)[0] != ordinary[0], missed


def test_a_loss_that_is_not_finite_has_the_batch():
    model = stem("norm")
    step, batch = fn.TrainStep(model, fn.SGD(0.1)), next(unmade_batches().epoch(0))
    model.parameters()["sequential1.conv2d1.w"][0, 0, 0, 3] = np.nan
    with pytest.raises(NonFiniteError, match=r"parameter sequential1\.conv2d1\.w is not finite") as caught:
        step(*batch, 0)
    np.testing.assert_array_equal(caught.value.x.get(), batch.x.made().get())


def test_batches_go_through_in_parts():
    losses, weights, used = train(stem("norm"), accumulate=3, epochs=1)
    expected, theirs, _ = train(stem("norm"), made=True, accumulate=3, epochs=1)
    assert "augment_conv2d" in used
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    np.testing.assert_allclose(weights, theirs, rtol=1e-4, atol=1e-6)


def test_what_is_no_training_gets_arrays():
    """Evaluation and predictions, and a model of another type than the batches."""
    model, batch = stem("norm"), next(unmade_batches().epoch(0))
    assert isinstance(model.prepare(batch.x), Unmade)
    assert not isinstance(stem("norm", dtype="float64").prepare(batch.x), Unmade)
    y, _ = model(batch.x, INFERENCE)
    np.testing.assert_allclose(model.predict(batch.x.made()).get(), y.get(), rtol=1e-5, atol=1e-6)
