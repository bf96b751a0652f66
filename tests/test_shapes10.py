"""shapes10: the same bytes everywhere, balanced, and images that show what their label says."""

import hashlib
import json

import numpy as np
import pytest

from fastnet.data import load, shapes10

# Version 1's contents. Whoever changes them on purpose counts VERSION up and notes the new hash.
SHA256 = "08093d43a78dae939a97cd07cadf11786c385482de61c377af0d072a6f032035"


def test_the_contents_are_those_of_the_version():
    source = shapes10.read()
    contents = source.train_images.tobytes() + source.test_images.tobytes()
    contents += np.concatenate([source.train_labels, source.test_labels]).astype(np.uint8).tobytes()
    assert hashlib.sha256(contents).hexdigest() == source.identity["sha256"] == SHA256
    assert shapes10.VERSION == 1 and source.identity["form"] == "generated, version 1"


def test_shapes_types_and_balance():
    data = load("shapes10")
    assert data.name == "shapes10" and data.classes == shapes10.CLASSES and len(set(data.classes)) == 10
    assert data.train.images.shape == (9000, 32, 32, 3) and data.validation.images.shape == (1000, 32, 32, 3)
    assert data.test.images.shape == (2000, 32, 32, 3) and data.test.images.dtype == np.uint8
    labels = np.concatenate([data.train.labels, data.validation.labels])
    assert np.bincount(labels).tolist() == [1000] * 10 and np.bincount(data.test.labels).tolist() == [200] * 10
    assert json.loads(json.dumps(data.identity)) == data.identity
    assert data.identity["official"] is True and data.identity["notice"] is None


def test_an_image_depends_on_its_id_alone(monkeypatch):
    ids = np.arange(200)
    images, labels = shapes10.generate(ids)
    some = np.array([150, 3, 77, 3])
    again, some_labels = shapes10.generate(some)
    np.testing.assert_array_equal(again, images[some])
    np.testing.assert_array_equal(some_labels, labels[some])
    monkeypatch.setattr(shapes10, "CHUNK", 7)
    np.testing.assert_array_equal(shapes10.generate(ids)[0], images)


def test_another_seed_gives_other_images():
    a, b = (shapes10.generate(np.arange(20), seed)[0] for seed in (0, 1))
    assert (a != b).mean() > 0.9


def test_what_one_caller_does_to_the_images_another_does_not_see():
    first = shapes10.read()
    before = first.train_images[0].copy()
    first.train_images[0] = 0
    np.testing.assert_array_equal(shapes10.read().train_images[0], before)


def test_no_images_are_fine():
    images, labels = shapes10.generate(np.arange(0))
    assert images.shape == (0, 32, 32, 3) and labels.shape == (0,)


def test_training_and_test_images_differ():
    source = shapes10.read()
    train = {image.tobytes() for image in source.train_images}
    assert len(train) == 10_000 and not any(image.tobytes() in train for image in source.test_images)


def _inside(label):
    """Where the class's figure is: coverage over one half, drawn upright in the middle with radius 12."""
    grid = np.arange(-16, 16, dtype=np.float32) + np.float32(0.5)
    u, v = np.broadcast_to(grid[None, :], (32, 32)), np.broadcast_to(grid[:, None], (32, 32))
    return shapes10._FIGURES[label](u, v, np.float32(12)) < 0


def _is_symmetric(inside, transform):
    return bool((inside == transform(inside)).all())


@pytest.mark.parametrize(("name", "turned", "left_right", "upside_down"), [
    ("circle", True, True, True), ("square", True, True, True), ("triangle", False, True, False),
    ("ring", True, True, True), ("plus", True, True, True), ("cross", True, True, True),
    ("horizontal bars", False, True, True), ("vertical bars", False, True, True), ("checkerboard", True, True, True),
    ("star", False, True, False)])
def test_figures_have_the_symmetry_of_their_name(name, turned, left_right, upside_down):
    inside = _inside(shapes10.CLASSES.index(name))
    assert _is_symmetric(inside, np.rot90) == turned
    assert _is_symmetric(inside, np.fliplr) == left_right
    assert _is_symmetric(inside, np.flipud) == upside_down


def _crossings(line):
    return int((np.diff(line.astype(int)) == 1).sum())  # how often one enters the figure along the line


@pytest.mark.parametrize(("name", "across", "down"), [
    ("circle", 1, 1), ("square", 1, 1), ("triangle", 1, 1), ("ring", 2, 2), ("plus", 1, 1), ("cross", 1, 1),
    ("horizontal bars", 1, 3), ("vertical bars", 3, 1), ("star", 1, 1)])
def test_lines_through_the_middle_meet_the_parts_of_the_figure(name, across, down):
    inside = _inside(shapes10.CLASSES.index(name))
    assert (_crossings(inside[15]), _crossings(inside[:, 15])) == (across, down)


def test_the_checkerboard_alternates():
    inside = _inside(shapes10.CLASSES.index("checkerboard"))
    assert _crossings(inside[15]) == 2 and _crossings(inside[19]) == 3


def test_bars_are_each_other_turned_and_plus_is_the_cross_turned():
    names = shapes10.CLASSES.index
    np.testing.assert_array_equal(_inside(names("horizontal bars")), _inside(names("vertical bars")).T)
    plus, cross = _inside(names("plus")), _inside(names("cross"))
    assert plus[15, 5] and not plus[7, 7] and cross[8, 8] and not cross[15, 5]
    assert abs(plus.sum() / cross.sum() - 1) < 0.05


def test_the_star_has_five_points():
    inside = _inside(shapes10.CLASSES.index("star"))
    y, x = np.mgrid[-15.5:16, -15.5:16]
    angle = np.arctan2(y, x)[inside & (np.hypot(x, y) > 9)]
    assert len({round(a / (2 * np.pi / 5) + 1.25) % 5 for a in angle}) == 5


@pytest.mark.parametrize("name", shapes10.CLASSES)
def test_a_linear_look_tells_figure_from_ground(name):
    # The figure is lighter than the ground in every channel on average, and covers part of the image only.
    label = shapes10.CLASSES.index(name)
    images, _ = shapes10.generate(np.arange(label, 400, 10))
    grey = images.mean(axis=3)
    corners = grey[:, [0, 0, -1, -1], [0, -1, 0, -1]].mean(axis=1)
    assert (np.quantile(grey, 0.97, axis=(1, 2)) > corners + 20).all()
