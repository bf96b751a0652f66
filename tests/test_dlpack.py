"""Arrays of other libraries: taken in without a copy through DLPack, and handed out so that others can take them."""

import sys
import types

import numpy as np
import pytest

import fastnet as fn
from fastnet.arrays import from_elsewhere

CPU, CUDA, CUDA_HOST = 1, 2, 3


class Foreign:
    """What another library's array is to us: `__dlpack__` and `__dlpack_device__` alone."""

    def __init__(self, array, device=CPU):
        self.array, self.device, self.asked = array, device, 0

    def __dlpack__(self, **options):
        self.asked += 1
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return (self.device, 0)

    def __len__(self):
        return len(self.array)


class GpuOnly(Foreign):
    def __dlpack__(self, **options):
        raise AssertionError("nothing may be asked of a GPU's memory")


def small(**options):
    return fn.build("lenet5", filters=(2, 3), hidden=(8,), input_shape=(16, 16, 3), **options)


X = np.random.default_rng(0).standard_normal((5, 16, 16, 3)).astype(np.float32)
LABELS = np.array([0, 3, 9, 1, 1])


def test_it_is_a_view_of_the_same_memory():
    taken = from_elsewhere("x", Foreign(X))
    assert isinstance(taken, np.ndarray) and np.shares_memory(taken, X)
    assert np.shares_memory(small().prepare(Foreign(X)), X)
    assert not np.shares_memory(small(dtype="float64").prepare(Foreign(X)), X)  # another type needs a copy
    assert np.shares_memory(from_elsewhere("x", Foreign(X, CUDA_HOST)), X)  # the CPU reads that memory too


def test_our_own_arrays_stay_what_they_are():
    assert from_elsewhere("x", X) is X and small().prepare(X) is X
    assert from_elsewhere("x", [1, 2]) == [1, 2] and from_elsewhere("x", None) is None


def test_predict_gradients_and_steps_take_them():
    model = small()
    assert (model.predict(Foreign(X)) == model.predict(X)).all()
    ours, theirs = (fn.loss_and_gradients(model, x, labels)
                    for x, labels in ((X, LABELS), (Foreign(X), Foreign(LABELS))))
    assert ours[0] == theirs[0] and all((ours[1][name] == theirs[1][name]).all() for name in ours[1])
    models, samples = (small(), small()), np.array([7, 1, 2, 30, 4])
    steps = [fn.TrainStep(m, fn.SGD(lr=0.1)) for m in models]
    assert steps[0](X, LABELS, samples) == steps[1](Foreign(X), Foreign(LABELS), Foreign(samples))
    assert (models[0].store.vector == models[1].store.vector).all()


def test_samples_reach_dropout():
    samples = np.arange(5) + 100
    losses = []
    for ids in (samples, Foreign(samples), None):
        model = fn.Sequential([fn.Dropout(0.5), fn.Linear(768, 10)])
        losses.append(fn.TrainStep(model, fn.SGD(lr=0.1))(X, LABELS, ids))
    assert losses[0] == losses[1] != losses[2]


MODELS = {  # each first layer's kernel: matrix products, few channels, Winograd, depthwise
    "mlp2": (fn.build("mlp2", inputs=768), X),
    "lenet5": (small(), X),
    "vgg-a-bn": (fn.build("vgg-a-bn", filter_multiplier=1 / 16, hidden=(), input_shape=(32, 32, 16)),
                 np.random.default_rng(1).standard_normal((4, 32, 32, 16)).astype(np.float32)),
    "depthwise": (fn.Sequential([fn.DepthwiseSeparable(3, 4), fn.GlobalAvgPool(), fn.Linear(4, 10)]), X),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", ["read-only", "channels first", "every other", "backwards"])
def test_memory_that_cannot_be_written_or_has_gaps(name, kind):
    """The same bits as from an array of ours, from `predict` and for every gradient; the caller's memory stays."""
    model, x = MODELS[name]
    base = {"read-only": x.copy(), "channels first": x.transpose(0, 3, 1, 2).copy(),
            "every other": np.repeat(x, 2, axis=1), "backwards": x[:, :, ::-1].copy()}[kind]
    before = base.copy()
    base.flags.writeable = False
    view = {"read-only": base, "channels first": base.transpose(0, 2, 3, 1), "every other": base[:, ::2],
            "backwards": base[:, :, ::-1]}[kind]
    labels = np.arange(len(x)) % 10
    labels.flags.writeable = False
    taken = model.prepare(Foreign(view))
    assert np.shares_memory(taken, base) and not taken.flags.writeable and (taken == x).all()
    np.testing.assert_array_equal(model.predict(Foreign(view)), model.predict(x))
    theirs, ours = (fn.loss_and_gradients(model, *batch) for batch in ((Foreign(view), Foreign(labels)), (x, labels)))
    assert theirs[0] == ours[0]
    for parameter in ours[1]:
        np.testing.assert_array_equal(theirs[1][parameter], ours[1][parameter], parameter)
    assert (base == before).all()


def test_a_step_takes_memory_that_cannot_be_written():
    x, labels = X[:, ::-1], LABELS.copy()
    x.flags.writeable = labels.flags.writeable = False
    model, twin = small(), small()
    for net, batch in ((model, (Foreign(x), Foreign(labels))), (twin, (x.copy(), LABELS))):
        fn.TrainStep(net, fn.SGD(lr=0.1))(*batch)
    assert (model.store.vector == twin.store.vector).all()


@pytest.mark.parametrize("call", [
    lambda model, x, y: model.predict(x),
    lambda model, x, y: fn.loss_and_gradients(model, x, y),
    lambda model, x, y: fn.TrainStep(model, fn.SGD(lr=0.1))(x, y),
], ids=["predict", "loss_and_gradients", "TrainStep"])
def test_a_gpus_memory_is_refused(call):
    model = small()
    before = model.store.vector.copy()
    with pytest.raises(TypeError, match=r"^x is a test_dlpack\.GpuOnly in the memory of a GPU \(CUDA\), but the model "
                                        r"is in main memory: copy it there first$"):
        call(model, GpuOnly(X, CUDA), LABELS)
    assert (model.store.vector == before).all()


def test_labels_in_a_gpus_memory_are_refused():
    with pytest.raises(TypeError, match=r"^labels is a .* in the memory of a GPU"):
        fn.loss_and_gradients(small(), X, GpuOnly(LABELS, CUDA))
    with pytest.raises(TypeError, match=r"^samples is a .* in the memory of a GPU"):
        fn.TrainStep(small(), fn.SGD(lr=0.1))(X, LABELS, GpuOnly(LABELS, CUDA))


def test_cupys_arrays_are_refused_by_a_model_on_the_cpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", types.ModuleType("cupy"))
    ndarray = type("ndarray", (), {"__module__": "cupy", "dtype": np.dtype("float32"), "ndim": 4})
    with pytest.raises(TypeError, match=r"^x is a CuPy array, on a GPU, but .* copy it: x\.get\(\)$"):
        small().predict(ndarray())


def test_what_numpy_cannot_look_into_is_named():
    class Odd(Foreign):
        dtype = "bfloat16"

        def __dlpack__(self, **options):
            raise BufferError("no such type")

    with pytest.raises(TypeError, match=r"test_dlpack\.Odd of bfloat16 that NumPy cannot take over: no such type"):
        small().predict(Odd(X))


@pytest.mark.parametrize(("x", "labels", "message"), [
    (Foreign((X * 9).astype(np.int16)), LABELS, "x is int16, but floating-point numbers are needed"),
    (Foreign(X), Foreign(LABELS * 1.0), "labels are float64, but integers are needed"),
    (Foreign(X), LABELS.tolist(), "labels is a list, but an array is needed"),
    (X.tolist(), LABELS, "x must be an array, got list"),
])
def test_the_usual_checks_follow(x, labels, message):
    with pytest.raises(TypeError, match=message):
        fn.loss_and_gradients(small(), x, labels)


def test_what_we_return_goes_elsewhere_without_a_copy():
    model = small()
    loss, gradients = fn.loss_and_gradients(model, X, LABELS)
    for array in (model.predict(X), *gradients.values(), *model.parameters().values()):
        assert np.shares_memory(np.from_dlpack(array), array)
    assert np.from_dlpack(np.asarray(loss)) == loss


# --- PyTorch ---

@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed (pip install 'fastnet[bench]')")


def test_tensors_in_and_out(torch):
    model, x, labels = small(), torch.from_numpy(X.copy()), torch.from_numpy(LABELS.copy())
    assert model.prepare(x).ctypes.data == x.data_ptr()
    logits = torch.from_dlpack(model.predict(x))
    assert torch.equal(logits, torch.from_numpy(model.predict(X)))
    expected = torch.nn.functional.cross_entropy(logits, labels)
    loss, gradients = fn.loss_and_gradients(model, x, labels)
    assert abs(float(loss) - float(expected)) < 1e-5
    name, gradient = next(iter(gradients.items()))
    assert torch.from_dlpack(gradient).data_ptr() == gradient.ctypes.data
    shared = torch.from_dlpack(model.parameters()[name])
    shared.zero_()
    assert (model.parameters()[name] == 0).all()
    channels_last = torch.from_numpy(X.transpose(0, 3, 1, 2).copy()).permute(0, 2, 3, 1)
    np.testing.assert_array_equal(model.predict(channels_last), model.predict(X))
    assert fn.TrainStep(model, fn.SGD(lr=0.1))(x, labels) > 0
    np.testing.assert_array_equal(model.predict(x.double()), model.predict(X))


def test_tensors_that_cannot_come_in(torch):
    x = torch.from_numpy(X.copy())
    with pytest.raises(TypeError, match=r"x is a torch\.Tensor of torch\.bfloat16 that NumPy cannot take over: Unsupp"):
        small().predict(x.to(torch.bfloat16))
    with pytest.raises(TypeError, match=r"x is a torch\.Tensor .*requires? grad.*tensor\.detach\(\)"):
        small().predict(x.requires_grad_())
    with pytest.raises(TypeError, match=r"x is a torch\.Tensor .*meta"):
        small().predict(x.detach().to("meta"))
