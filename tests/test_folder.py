"""folder:DIR: a user's own images, the layouts they may have, and one line for each thing that is wrong."""

import json
import shutil

import numpy as np
import pytest

from fastnet.data import folder, load
from fastnet.data import images as reader
from fastnet.data.images import FORMATS

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed (pip install 'fastnet[images]')")


def save(path, pixels=None, size=(32, 32), seed=0, **options):
    """Write an image of `pixels` (H, W, 3), else of random ones of `size` (H, W)."""
    if pixels is None:
        pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return pixels


@pytest.fixture
def classes(tmp_path):
    """Folders 'cat' with 12 and 'ant' with 28 images."""
    for k in range(40):
        save(tmp_path / ("cat" if k < 12 else "ant") / f"{k:02}.png", seed=k)
    return tmp_path


def test_one_level_is_divided_and_described(classes):
    data = load(f"folder:{classes}")
    assert data.classes == ("ant", "cat") and data.name == f"folder:{classes.name}"
    assert [len(part) for part in (data.train, data.validation, data.test)] == [32, 4, 4]
    assert np.bincount(data.test.labels).tolist() == [3, 1]
    assert data.train.images.shape == (32, 32, 32, 3)
    identity = data.identity
    assert json.loads(json.dumps(identity)) == identity
    assert {k: identity[k] for k in ("form", "official", "notice", "image_size", "training_files", "test_files",
                                     "split", "order", "seed")} == {
        "form": "folder", "official": None, "notice": None, "image_size": 32, "training_files": 36, "test_files": 4,
        "split": "32/4", "order": "random", "seed": 0}


def test_the_pixels_are_those_of_the_files_in_the_order_of_their_names(classes):
    source = folder.read(classes)
    everything = [(np.random.default_rng(k).integers(0, 256, (32, 32, 3), dtype=np.uint8), int(k < 12))
                  for k in [*range(12, 40), *range(12)]]
    found = {image.tobytes(): (place, label) for place, (image, label) in enumerate(everything)}
    for images, labels in ((source.train_images, source.train_labels), (source.test_images, source.test_labels)):
        places, expected = zip(*(found[image.tobytes()] for image in images), strict=True)
        assert list(places) == sorted(places) and list(expected) == labels.tolist()
    assert len(source.train_labels) + len(source.test_labels) == 40


def test_the_test_images_are_the_same_for_any_seed_and_place(classes, tmp_path_factory):
    a = load(f"folder:{classes}")
    elsewhere = tmp_path_factory.mktemp("other") / classes.name
    shutil.copytree(classes, elsewhere)
    b = load(f"folder:{elsewhere}", seed=3, split="20/10")
    np.testing.assert_array_equal(a.test.images, b.test.images)
    assert a.identity["sha256"] == b.identity["sha256"] and a.name == b.name
    assert [len(b.train), len(b.validation)] == [20, 10]


def test_the_identity_covers_pixels_labels_and_class_names(classes):
    seen = {folder.read(classes).identity["sha256"]}
    save(classes / "ant" / "12.png", seed=99)
    seen.add(folder.read(classes).identity["sha256"])
    (classes / "ant" / "39.png").rename(classes / "cat" / "00a.png")
    seen.add(folder.read(classes).identity["sha256"])
    (classes / "ant").rename(classes / "bat")
    seen.add(folder.read(classes).identity["sha256"])
    assert len(seen) == 4


def test_training_and_test_folders(tmp_path):
    for part, count in (("train", 10), ("test", 3)):
        for name in ("b", "a"):
            for k in range(count):
                save(tmp_path / part / name / f"{k}.jpg", np.full((40, 40, 3), 10 * k, np.uint8))
    (tmp_path / "validation").mkdir()
    data = load(f"folder:{tmp_path}", order="file", image_size=8)
    assert data.classes == ("a", "b") and data.train.images.shape == (18, 8, 8, 3)
    assert data.test.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.test.images[:, 4, 4, 0].tolist() == [0, 10, 20, 0, 10, 20]
    assert data.train.images[:, 4, 4, 0].tolist() == [*range(0, 100, 10), *range(0, 80, 10)]
    assert data.identity["notice"] == f"{tmp_path}: 1 entry that is no image ignored"
    shutil.rmtree(tmp_path / "test" / "b")
    save(tmp_path / "test" / "c" / "0.png")
    with pytest.raises(ValueError, match=r"/train and .*/test have different classes: only in train are \['b'\], "
                                         r"only in test \['c'\]"):
        folder.read(tmp_path)
    shutil.rmtree(tmp_path / "train" / "b")
    save(tmp_path / "train" / "c" / "0.png")
    save(tmp_path / "train" / "d" / "0.png")
    with pytest.raises(ValueError, match=r"only in train are \['d'\], only in test none"):
        folder.read(tmp_path)


def test_a_folder_named_train_alone_is_a_class(classes):
    (classes / "ant").rename(classes / "train")
    assert folder.read(classes).classes == ("cat", "train")


def two(tmp_path):
    """Class b has one image; the file that a test wants is the one of class a, the first of both."""
    save(tmp_path / "b" / "0.png", np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "a").mkdir()
    return tmp_path / "a"


def first_image(tmp_path, size):
    source = folder.read(tmp_path, size)
    images, labels = (np.concatenate(pair) for pair in ((source.train_images, source.test_images),
                                                        (source.train_labels, source.test_labels)))
    return images[labels == 0][0]


def test_the_middle_square_is_taken(tmp_path):
    pixels = save(two(tmp_path) / "wide.png", size=(6, 11))
    np.testing.assert_array_equal(first_image(tmp_path, 6), pixels[:, 2:8])
    (tmp_path / "a" / "wide.png").unlink()
    pixels = save(tmp_path / "a" / "tall.png", size=(9, 4))
    np.testing.assert_array_equal(first_image(tmp_path, 4), pixels[2:6])


def test_shrinking_smooths_first(tmp_path):
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    save(two(tmp_path) / "stripes.png", stripes)
    assert (np.abs(first_image(tmp_path, 8).astype(int) - 100) <= 4).all()  # one pixel in eight would be 0 or 200


def test_pixels_outside_the_square_do_not_bleed_in(tmp_path):
    pixels = np.full((16, 48, 3), 255, np.uint8)
    pixels[:, 16:32] = 7
    save(two(tmp_path) / "wide.png", pixels)
    assert (first_image(tmp_path, 5) == 7).all()


@pytest.mark.parametrize(("mode", "level", "expected"), [
    ("L", 90, 90), ("LA", (90, 10), 90), ("RGBA", (90, 90, 90, 0), 90), ("1", 1, 255), ("P", 3, 3)])
def test_other_kinds_of_pixels_become_rgb(tmp_path, mode, level, expected):
    image = Image.new(mode, (8, 8), level)
    if mode == "P":
        image.putpalette([k for k in range(256) for _ in range(3)])
    image.save(two(tmp_path) / "0.png")
    assert (first_image(tmp_path, 8) == expected).all()


def test_the_camera_says_which_way_is_up(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    save(two(tmp_path) / "0.png", pixels, exif=exif)
    np.testing.assert_array_equal(first_image(tmp_path, 8), np.rot90(pixels, -1))


def test_hidden_files_are_skipped_and_others_counted(classes):
    before = folder.read(classes)
    (classes / ".hidden").mkdir()
    (classes / "ant" / ".DS_Store").write_bytes(b"x")
    assert folder.read(classes).identity == before.identity
    (classes / "readme.txt").write_text("x")
    (classes / "ant" / "notes.txt").write_text("x")
    (classes / "cat" / "folder.png").mkdir()
    source = folder.read(classes)
    assert source.identity["notice"] == f"{classes}: 3 entries that are no image ignored"
    np.testing.assert_array_equal(source.train_images, before.train_images)
    (classes / "ant" / "12.png").rename(classes / "ant" / "12.PNG")
    assert folder.read(classes).identity["sha256"] == before.identity["sha256"]


def test_folders_that_do_not_fit_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"folder: .*/nothing does not exist"):
        load(f"folder:{tmp_path}/nothing")
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError, match=r"folder: .*/file is a file, but a folder with a folder for each"):
        folder.read(tmp_path / "file")
    with pytest.raises(ValueError, match=r"folder: .* has no folders; one for each class"):
        folder.read(tmp_path)
    save(tmp_path / "cat" / "0.png")
    with pytest.raises(ValueError, match=r"has the class 'cat' alone, but at least 2 are needed"):
        folder.read(tmp_path)
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "0.txt").write_text("x")
    with pytest.raises(ValueError, match=r"folder: .*/dog has no images \(files that end in \.bmp, \.gif, "):
        folder.read(tmp_path)
    with pytest.raises(ValueError, match="image_size must be a whole number of pixels, at least 1, but is 0"):
        folder.read(tmp_path, 0)


def test_files_that_cannot_be_read_are_counted_and_the_first_is_named(classes):
    (classes / "ant" / "20.png").write_bytes(b"this is no image")
    whole = (classes / "cat" / "05.png").read_bytes()
    (classes / "cat" / "05.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError) as error:
        folder.read(classes)
    assert str(error.value) == (f"folder: 2 of 40 files cannot be read as images, first {classes}/ant/20.png: it is "
                                f"none of {', '.join(FORMATS)}")
    (classes / "ant" / "20.png").unlink()
    with pytest.raises(ValueError, match=r"1 of 39 files cannot be read as images, first .*/cat/05\.png: .*truncated"):
        folder.read(classes)


def test_sixteen_bits_are_not_cut_to_eight_in_silence(tmp_path):
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(two(tmp_path) / "0.png")
    with pytest.raises(ValueError, match=r"a/0\.png: its pixels \(I;16\) have more than 8 bits a channel"):
        folder.read(tmp_path)


@pytest.mark.parametrize("limit", [1000, 10])  # of pixels: Pillow warns above it and refuses above twice that
def test_images_above_the_limit_of_pillow_are_an_error(classes, monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(ValueError, match=r"40 of 40 files cannot be read as images, first .*/12\.png: .*pixels"):
        folder.read(classes)


def test_without_pillow_one_line_names_the_extra(classes, without):
    without("PIL")
    with pytest.raises(ImportError) as error:
        folder.read(classes)
    assert str(error.value) == "folder: Pillow is needed to read images: pip install 'fastnet[images]'"


@pytest.mark.parametrize(("name", "options", "message"), [
    ("folder", {}, "there is no data set 'folder'; choose from cifar10, shapes10, digits, folder:DIR"),
    ("folder:", {}, "there is no data set 'folder:'; choose from"),
    ("shapes10", {"image_size": 64}, "image_size 64 is for folder:DIR; the images of shapes10 have their size"),
    ("folder:nowhere", {"split": "9"}, "split '9' is not of the form 'A/B'"),  # before anything is looked for
])
def test_load_says_what_does_not_fit(name, options, message):
    with pytest.raises(ValueError) as error:
        load(name, **options)
    assert message in str(error.value)


def test_a_picture_of_too_many_pixels_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "MOST_PIXELS", 63)
    save(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="it has 8 x 8 pixels, more than 63"):
        reader.read_image(tmp_path / "a.png", (8, 8, 3))
