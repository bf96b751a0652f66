"""The same weights in PyTorch and here, float64: outputs, all gradients and a whole training step agree to 1e-10.

An error is max|ours - theirs| / max|theirs| over an array. Skipped where PyTorch is not installed.
"""

import numpy as np
import pytest

import fastnet as fn
from fastnet.nn import interop

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install 'fastnet[bench]')")

from record_torch import VGG, LeNet, ResNet, scatter  # noqa: E402  (it imports torch)

BOUND = 1e-10
NETWORKS = {"lenet5": LeNet, "vgg-a-bn": VGG, "resnet18": ResNet}


def relative(ours, theirs, scale=None):
    theirs = theirs.detach().numpy()
    return np.abs(ours - theirs).max() / (np.abs(theirs).max() if scale is None else scale)


def twins(name, conv_algorithm="auto"):
    """(PyTorch's network, our model) with the same weights, of the full size, float64."""
    torch.manual_seed(1)
    net = scatter(NETWORKS[name]()).double()
    model = fn.build(name, dtype="float64", conv_algorithm=conv_algorithm)
    fn.load_weights(model, net.state_dict())
    assert model.num_parameters() == sum(p.numel() for p in net.parameters())
    return net, model


def batch(n=8):
    rng = np.random.default_rng(2)
    return rng.standard_normal((n, 32, 32, 3)), rng.integers(0, 10, n)


@pytest.mark.parametrize("conv_algorithm", ["auto", "direct"])
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_gradients_and_a_step(name, conv_algorithm):
    net, model = twins(name, conv_algorithm)
    x, labels = batch()
    images = torch.from_numpy(x).permute(0, 3, 1, 2)
    net.eval()
    errors = {"inference": relative(model.predict(x), net(images))}

    net.train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    expected = torch.nn.functional.cross_entropy(net(images), torch.from_numpy(labels))
    expected.backward()
    loss, gradients = fn.loss_and_gradients(model, x, labels)
    errors["loss"] = relative(loss, expected)
    theirs = dict(net.named_parameters())
    places = {place.ours: place for place in interop.places(model)}
    for ours, gradient in gradients.items():
        place = places[ours]
        # A bias that batch norm takes off again has gradient 0 but for rounding: what rounds is the layer's others.
        cancelled = name == "vgg-a-bn" and ours.startswith("features.") and ours.endswith(".b")
        scale = np.abs(gradients[ours[:-1] + "w"]).max() if cancelled else None
        errors[f"gradient of {ours}"] = relative(place.to_torch(gradient), theirs[place.theirs].grad, scale)
    assert len(errors) == 2 + len(theirs)

    fn.TrainStep(model, fn.SGD(lr=0.01))(x, labels)
    optimizer.step()
    after = interop.to_torch(model)
    for key, value in net.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            errors[f"{key} after a step"] = relative(after[key], value)
    worst = max(errors, key=errors.__getitem__)
    print(f"\n{name}, {conv_algorithm}: worst {errors[worst]:.1e} ({worst}); inference {errors['inference']:.1e}, loss "
          f"{errors['loss']:.1e}, gradients {max(e for k, e in errors.items() if k.startswith('gradient')):.1e}")
    assert errors[worst] < BOUND


def test_the_comparison_can_fail():
    """Each of what the conversion must get right, done wrong: the outputs differ by far more than the bound."""
    net, model = twins("lenet5")
    x, _ = batch(2)
    expected = net.eval()(torch.from_numpy(x).permute(0, 3, 1, 2))
    assert relative(model.predict(x), expected) < BOUND
    state = model.state()
    unordered = np.ascontiguousarray(net.fc1.weight.detach().numpy().T)  # the map's features left in PyTorch's order
    for wrong in ({"fc1.w": unordered}, {"conv1.w": state["conv1.w"].swapaxes(0, 1)},
                  {"conv2.b": state["conv2.b"][::-1]}, {"fc3.w": state["fc3.w"] * (1 + 1e-8)}):
        model.load_state({**state, **wrong})
        assert relative(model.predict(x), expected) > 10 * BOUND


def test_grouped_and_dilated_convolutions_and_a_normalised_flat_map():
    net = scatter(torch.nn.Sequential(
        torch.nn.Conv2d(6, 9, (3, 2), (2, 1), (1, 0), (1, 2), groups=3), torch.nn.Conv2d(9, 9, 3, groups=9, bias=False),
        torch.nn.BatchNorm2d(9), torch.nn.Flatten(), torch.nn.BatchNorm1d(135), torch.nn.Linear(135, 4))).double()
    torch.nn.init.normal_(net[4].weight)
    torch.nn.init.normal_(net[4].running_mean)
    model = fn.Sequential([
        ("0", fn.Conv2d(6, 9, (3, 2), (2, 1), (1, 0), (1, 2), groups=3)),
        ("1", fn.Conv2d(9, 9, 3, groups=9, bias=False)), ("2", fn.BatchNorm(9)), ("3", fn.Flatten()),
        ("4", fn.BatchNorm(135)), ("5", fn.Linear(135, 4))], dtype="float64")
    fn.load_weights(model, net.state_dict(), input_shape=(9, 9, 6))
    x = np.random.default_rng(0).standard_normal((5, 9, 9, 6))
    assert relative(model.predict(x), net.eval()(torch.from_numpy(x).permute(0, 3, 1, 2))) < BOUND


@pytest.mark.parametrize("name", NETWORKS)
def test_pytorch_takes_what_we_write(name, tmp_path):
    """`load_state_dict(strict=True)` of a fresh network, whose outputs are then ours."""
    from safetensors.torch import load_file

    model = twins(name)[1]
    fn.save_torch_weights(model, tmp_path / "w.safetensors")
    fresh = NETWORKS[name]().double()
    fresh.load_state_dict(load_file(tmp_path / "w.safetensors"), strict=True)
    x, _ = batch(2)
    assert relative(model.predict(x), fresh.eval()(torch.from_numpy(x).permute(0, 3, 1, 2))) < BOUND


def test_tensors_that_are_no_weights():
    net, model = twins("lenet5")
    state = net.state_dict()
    with pytest.raises(ValueError, match=r"conv1\.weight is a torch\.Tensor of torch\.bfloat16 that NumPy cannot take"):
        fn.load_weights(model, {**state, "conv1.weight": state["conv1.weight"].bfloat16()})
    with pytest.raises(ValueError, match=r"conv1\.weight is a torch\.Parameter .*tensor\.detach\(\)"):
        fn.load_weights(model, dict(net.named_parameters()))
