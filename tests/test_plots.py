"""Figures of the laboratory: each is written, shows the numbers it is given, and copes with what is not a number."""

import matplotlib
import matplotlib.figure
import numpy as np
import pytest
from tiny import dataset, fit, model

import fastnet as fn
from fastnet import lab, plots


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, in order."""
    found, save = [], matplotlib.figure.Figure.savefig
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig",
                        lambda self, path, **how: (found.append(self), save(self, path, **how)))
    return found


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG")


def by_label(figure):
    return {axis.get_ylabel(): axis for axis in figure.axes}


def band(low, high):
    return lab.plain(lab.band({"a": low, "b": high}))


def test_bands(drawn, tmp_path):
    panels = {"Loss (nats)": {"plain": band([3, 2, np.nan], [4, 3, np.nan]), "norm": band([1, 1, 1], [2, 2, 2])},
              "Smoothness": {"plain": band([1, 10, 100], [2, 20, 200])}}
    plots.bands(panels, tmp_path / "a.png", title="t", log=("Smoothness",))
    first, second = drawn[0].axes
    assert is_png(tmp_path / "a.png") and (first.get_ylabel(), second.get_yscale()) == ("Loss (nats)", "log")
    assert first.get_yscale() == "linear" and first.get_xlabel() == "Update step"
    low, high = (line.get_ydata() for line in first.lines[:2])
    np.testing.assert_array_equal(low, [3, 2, np.nan])
    np.testing.assert_array_equal(high, [4, 3, np.nan])
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["plain", "norm"]
    assert first.get_legend() is second.get_legend() is None


def line(losses):
    return {"a": [-1.0, 0.0, 1.0], "b": None, "losses": losses}


def test_loss_lines(drawn, tmp_path):
    plots.loss_lines({"a": line([3.0, 1.0, None]), "b": line([2.0, 1.0, 2.0])}, tmp_path / "a.png", title="t")
    plots.loss_lines({"a": line([300.0, 1.0, 5.0])}, tmp_path / "b.png", title="t")
    narrow, wide = drawn[0].axes[0], drawn[1].axes[0]
    assert is_png(tmp_path / "a.png") and (narrow.get_yscale(), wide.get_yscale()) == ("linear", "log")
    np.testing.assert_array_equal(narrow.lines[0].get_ydata(), [3, 1, np.nan])


def test_loss_contours(drawn, tmp_path):
    """The first direction is horizontal; all panels share the levels; what is not a number is left out."""
    a, b = np.linspace(-1, 1, 5), np.linspace(-1, 1, 3)
    losses = (10 ** (a[:, None] + 0 * b)).tolist()
    losses[0][2] = None
    surfaces = {"x": {"a": a, "b": b, "losses": losses}, "y": {"a": a, "b": b, "losses": np.full((5, 3), 2.0)}}
    plots.loss_contours(surfaces, tmp_path / "a.png", title="t")
    plots.loss_contours({"flat": surfaces["y"]}, tmp_path / "b.png", title="t")
    first, second, bar = drawn[0].axes
    assert is_png(tmp_path / "a.png") and is_png(tmp_path / "b.png")
    assert (first.get_title(), second.get_title(), bar.get_ylabel()) == ("x", "y", "Loss (nats)")
    filled = first.collections[0]
    assert filled.levels[0] == pytest.approx(0.1) and filled.levels[-1] == pytest.approx(10, rel=1e-5)
    edge = filled.get_paths()[0].get_extents()  # the lowest losses: a narrow strip on the left, as high as b
    assert edge.x1 < -0.7 and edge.y1 - edge.y0 > 0.9


def test_feature_maps(drawn, tmp_path):
    image = np.zeros((4, 6, 3), np.uint8)
    maps = {"conv": np.arange(48.0).reshape(4, 6, 2), "pool": np.ones((2, 3, 5)), "fc": np.ones(7)}
    plots.feature_maps(image, maps, tmp_path / "a.png", title="t", kinds={"conv": "Conv2d", "pool": "MaxPool2d"},
                       channels=3)
    axes = drawn[0].axes
    shown = [axis.images[0].get_array() for axis in axes if axis.images]
    assert is_png(tmp_path / "a.png") and len(shown) == 3  # the image, a row for conv, one for pool
    colours = matplotlib.colormaps["cividis"]
    assert shown[1].shape == (12, 3 * 18 + 2, 3)  # three maps of 6 columns, each pixel three wide, gaps of one
    np.testing.assert_allclose(shown[1][::3, 19:37:3], colours((maps["conv"][..., 1] - 1) / 46)[..., :3])
    assert (shown[1][:, 37:] == 1).all()  # there is no third map
    assert (shown[2][:, :18] == colours(0.0)[:3]).all()  # a flat one
    assert axes[1].get_ylabel() == "conv\nConv2d\n4x6x2"
    plots.feature_maps(np.ones((4, 6, 1)), {"conv": maps["conv"]}, tmp_path / "b.png", title="t")  # grey, floating
    with pytest.raises(ValueError, match="none of the layers has maps"):
        plots.feature_maps(image, {"fc": np.ones(7)}, tmp_path / "c.png", title="t")


def test_image_grid(drawn, tmp_path):
    split = dataset(30).train
    images = split.images[split.labels != 2]
    labels = split.labels[split.labels != 2]
    plots.image_grid(images, labels, tuple("abcdefghij"), tmp_path / "a.png", title="t", per_class=4)
    axes = drawn[0].axes
    assert is_png(tmp_path / "a.png") and [axis.get_ylabel() for axis in axes] == list("abcdefghij")
    row, none = (axes[index].images[0].get_array() for index in (1, 2))
    np.testing.assert_array_equal(row[::2, 34:50:2] * 255, images[labels == 1][2])
    assert (row[:, 50:] == 1).all() and (none == 1).all()  # of three images a class, and of none


def test_weight_histograms(drawn, tmp_path):
    net = model()
    net.parameters()["linear2.w"][:8] = 0
    rows = lab.plain(lab.weight_histograms(net, bins=11))
    plots.weight_histograms({"one": rows, "other": lab.plain(lab.weight_histograms(model(), bins=11))},
                            tmp_path / "a.png", title="t")
    plots.weight_histograms({"one": rows[:1]}, tmp_path / "b.png", title="t")
    first, second = drawn[0].axes[:2]
    assert is_png(tmp_path / "a.png") and is_png(tmp_path / "b.png")
    assert (first.get_title(), second.get_title()) == ("linear1.w\n0.0, 0.0 % zeros", "linear2.w\n50.0, 0.0 % zeros")
    values, edges, _ = second.patches[0].get_data()
    assert (values * np.diff(edges)).sum() == pytest.approx(1) and second.get_yscale() == "log"


def test_activity(drawn, tmp_path):
    activity = lab.Activity()
    fit(observer=activity)
    epochs = lab.plain(activity.epochs())
    plots.activity(epochs, tmp_path / "a.png", title="t")
    axes = by_label(drawn[0])
    assert is_png(tmp_path / "a.png")
    assert axes.keys() == {"Channel mean, BatchNorm", "Channel std, BatchNorm", "Dead ReLU units (%)", "Gradient norm",
                           "Weight norm", "Update / weight"}
    found = axes["Gradient norm"].lines
    assert [line.get_label() for line in found] == ["linear1.w", "linear2.w"]
    np.testing.assert_array_equal(found[1].get_ydata(), [next(row["gradient_norm"] for row in epoch["parameters"]
                                                              if row["name"] == "linear2.w") for epoch in epochs])
    np.testing.assert_array_equal(found[1].get_xdata(), [1, 2, 3])
    plain = lab.Activity()  # without batch norm and without ReLU
    step = fn.TrainStep(fn.Sequential([fn.Linear(6, 4), fn.Tanh(), fn.Linear(4, 3)]), fn.SGD(0.1))
    plain(step, np.ones((5, 6), np.float32), np.zeros(5, int))
    plots.activity(lab.plain(plain.epochs()), tmp_path / "b.png", title="t")
    axes = by_label(drawn[1])
    assert len(axes["Channel mean, Linear"].lines) == 2 and not axes["Dead ReLU units (%)"].lines
