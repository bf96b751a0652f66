"""CIFAR-10: every official form gives the same arrays, and every file that is not one gives one clear line."""

import gzip
import hashlib
import io
import json
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest

from fastnet.data import batch_pickle, cifar10, cifar10_files, load

ROWS = 12  # images a file, instead of 10,000
NAMES = list(cifar10_files.BATCHES)


@pytest.fixture(autouse=True)
def small_files_and_no_network(monkeypatch, tmp_path):
    monkeypatch.setattr(cifar10_files, "ROWS", ROWS)
    monkeypatch.setenv("FASTNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FASTNET_DATA", raising=False)

    import pooch

    def no_network(*arguments, **options):
        raise ConnectionRefusedError("no network in tests")

    monkeypatch.setattr(pooch, "retrieve", no_network)


@pytest.fixture
def batches():
    """Six batches as (pixels (ROWS, 3072) uint8 in planes, labels): random, as all their order is worth checking."""
    rng = np.random.default_rng(0)
    return {name: (rng.integers(0, 256, (ROWS, 3072), dtype=np.uint8), rng.integers(0, 10, ROWS).tolist())
            for name in NAMES}


def binary(pixels, labels):
    return b"".join(bytes([label]) + row.tobytes() for label, row in zip(labels, pixels, strict=True))


def python3(pixels, labels, protocol=4, as_bytes=False):
    batch = {"batch_label": "a batch", "labels": labels, "data": pixels, "filenames": ["x.png"] * len(labels)}
    if as_bytes:
        batch = {key.encode(): value for key, value in batch.items()}
    return pickle.dumps(batch, protocol)


def python2(pixels, labels):
    """The opcodes that cPickle of Python 2 wrote into the official files (protocol 2, 8-bit strings)."""

    def text(s):
        return b"U" + bytes([len(s)]) + s

    raw = pixels.tobytes()
    shape = b"M" + struct.pack("<H", len(labels)) + b"M\x00\x0c\x86"
    return b"".join([
        b"\x80\x02}q\x01(", text(b"batch_label"), b"q\x02", text(b"training batch 1 of 5"), b"q\x03",
        text(b"labels"), b"q\x04]q\x05(", b"".join(b"K" + bytes([label]) for label in labels), b"e",
        text(b"data"), b"q\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85",
        text(b"b"), b"\x87Rq\x09(K\x01", shape, b"cnumpy\ndtype\nq\x0a", text(b"u1"), b"K\x00K\x01\x87Rq\x0b(K\x03",
        text(b"|"), b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T", struct.pack("<i", len(raw)), raw, b"tb",
        text(b"filenames"), b"q\x0c](", b"".join(text(b"x_%d.png" % i) for i in range(len(labels))), b"eu."])


def write_folder(place, contents, suffix=""):
    place.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (place / (name + suffix)).write_bytes(content)
    return place


def write_archive(path, contents, inside, suffix="", directories=()):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name in directories:
            member = tarfile.TarInfo(f"{inside}/{name}")
            member.type = tarfile.DIRTYPE
            tar.addfile(member)
        for name in reversed(contents):  # the official ones are not in order either
            member = tarfile.TarInfo(f"{inside}/{name}{suffix}")
            member.size = len(contents[name])
            tar.addfile(member, io.BytesIO(contents[name]))
    return path


def official(monkeypatch, **contents):
    """Make these files or archives the official ones."""
    for name, content in contents.items():
        table = cifar10_files.BATCHES if name in NAMES else cifar10_files.ARCHIVES
        key = name if name in NAMES else f"cifar-10-{name}.tar.gz"
        monkeypatch.setitem(table, key, hashlib.md5(content).hexdigest())


def write(form, place, batches, monkeypatch):
    """Write `batches` in one of the official forms below `place`; return the form's own path."""
    if form == "binary folder":
        return write_folder(place / "cifar-10-batches-bin", {n: binary(*b) for n, b in batches.items()}, ".bin")
    if form == "python folder":
        return write_folder(place / "cifar-10-batches-py", {n: python2(*b) for n, b in batches.items()})
    if form == "binary archive":
        path = write_archive(place / "cifar-10-binary.tar.gz", {n: binary(*b) for n, b in batches.items()},
                             "cifar-10-batches-bin", ".bin")
    else:
        path = write_archive(place / "cifar-10-python.tar.gz", {n: python2(*b) for n, b in batches.items()},
                             "cifar-10-batches-py")
    official(monkeypatch, **{form.split()[0]: path.read_bytes()})
    return path


FORMS = ("python folder", "binary folder", "python archive", "binary archive")


def expect(source, batches):
    images = np.concatenate([source.train_images, source.test_images])
    labels = np.concatenate([source.train_labels, source.test_labels])
    assert images.shape == (6 * ROWS, 32, 32, 3) and images.dtype == np.uint8 and images.flags.c_contiguous
    assert len(source.test_labels) == ROWS and labels.dtype == np.int64
    assert labels.tolist() == [label for _, some in batches.values() for label in some]
    rows = np.concatenate([pixels for pixels, _ in batches.values()])
    rng = np.random.default_rng(1)
    for n, y, x, c in zip(rng.integers(0, len(rows), 3000), *rng.integers(0, 32, (2, 3000)), rng.integers(0, 3, 3000),
                          strict=True):
        assert images[n, y, x, c] == rows[n, 1024 * c + 32 * y + x]
    np.testing.assert_array_equal(np.sort(images.reshape(len(rows), -1)), np.sort(rows))
    assert source.identity["sha256"] == hashlib.sha256(b"".join(binary(*b) for b in batches.values())).hexdigest()


# --- every form ---

@pytest.mark.parametrize("itself", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_arrays(form, itself, batches, tmp_path, monkeypatch):
    path = write(form, tmp_path / "data", batches, monkeypatch)
    source = cifar10.read(path if itself else tmp_path / "data", download=False)
    expect(source, batches)
    assert source.identity["form"] == form and source.classes == cifar10.CLASSES
    assert json.loads(json.dumps(source.identity)) == source.identity


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("as_bytes", [True, False])
@pytest.mark.parametrize("protocol", range(6))
def test_files_pickled_again_by_python_3_are_read(protocol, as_bytes, order, batches, tmp_path):
    contents = {n: python3(np.asarray(p, order=order), labels, protocol, as_bytes)
                for n, (p, labels) in batches.items()}
    expect(cifar10.read(write_folder(tmp_path / "cifar-10-batches-py", contents)), batches)


def test_read_only_arrays_pickled_with_protocol_5_are_read(batches, tmp_path):
    for pixels, _ in batches.values():
        pixels.flags.writeable = False
    contents = {n: python3(*b, protocol=5) for n, b in batches.items()}
    expect(cifar10.read(write_folder(tmp_path / "cifar-10-batches-py", contents)), batches)


def test_the_real_sizes(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10_files, "ROWS", 10_000)
    for name in NAMES:  # files of zeros that take no room on disk
        with open(tmp_path / f"{name}.bin", "wb") as file:
            file.truncate(30_730_000)
    source = cifar10.read(tmp_path)
    assert source.train_images.shape == (50_000, 32, 32, 3) and source.test_images.shape == (10_000, 32, 32, 3)
    assert not source.train_labels.any()
    os.truncate(tmp_path / "test_batch.bin", 30_729_999)
    with pytest.raises(ValueError) as error:
        cifar10.read(tmp_path)
    assert str(error.value) == (f"cifar10: {tmp_path}/test_batch.bin has 30729999 bytes, but 10000 rows of 1 label "
                                f"byte and 3072 pixel bytes are exactly 30730000")


def test_load_splits_the_training_files(batches, tmp_path, monkeypatch):
    write("binary folder", tmp_path, batches, monkeypatch)
    data = load("cifar10", tmp_path, split=f"{ROWS}/{ROWS}", order="file")  # R1: one batch file, then the next
    assert data.train.labels.tolist() == batches["data_batch_1"][1]
    assert data.validation.labels.tolist() == batches["data_batch_2"][1]
    assert data.test.labels.tolist() == batches["test_batch"][1]
    assert set(data.identity) == {"name", "form", "sha256", "official", "notice", "split", "order", "seed"}
    with pytest.raises(ValueError, match="split '45000/5000' needs 50000 images, but cifar10 has 60 for training"):
        load("cifar10", tmp_path)


# --- official or not ---

def test_a_python_folder_with_the_official_hashes_is_official(batches, tmp_path, monkeypatch):
    write("python folder", tmp_path, batches, monkeypatch)
    official(monkeypatch, **{name: python2(*b) for name, b in batches.items()})
    identity = cifar10.read(tmp_path).identity
    assert identity["official"] is True and identity["notice"] is None
    checks = cifar10.verify(tmp_path)
    assert [c.file for c in checks] == NAMES and all(c.verdict == "official" and c.good for c in checks)
    monkeypatch.setitem(cifar10_files.BATCHES, "data_batch_2", "0" * 32)
    identity = cifar10.read(tmp_path).identity
    assert identity["official"] is False
    assert identity["notice"] == (f"cifar10: the files in cifar-10-batches-py are not the official ones "
                                  f"(sha256 {identity['sha256']}), used as they are")


def test_of_a_binary_folder_it_cannot_be_told(batches, tmp_path, monkeypatch):
    write("binary folder", tmp_path, batches, monkeypatch)
    identity = cifar10.read(tmp_path).identity
    assert identity["official"] is None
    assert identity["notice"] == (f"cifar10: the files in cifar-10-batches-bin (sha256 "
                                  f"{identity['sha256']}) are used as they are: single binary files have no official "
                                  f"hash to compare with")


@pytest.mark.parametrize("form", ["python archive", "binary archive"])
def test_an_archive_with_the_official_hash_is_official(form, batches, tmp_path, monkeypatch):
    write(form, tmp_path, batches, monkeypatch)
    identity = cifar10.read(tmp_path).identity
    assert identity["official"] is True and identity["notice"] is None
    (check,) = cifar10.verify(tmp_path)
    assert check.verdict == "official" and check.good


@pytest.mark.parametrize("form", ["python", "binary"])
def test_an_archive_with_another_hash_is_an_error(form, batches, tmp_path, monkeypatch):
    path = write(f"{form} archive", tmp_path, batches, monkeypatch)
    expected = cifar10_files.ARCHIVES[path.name]
    path.write_bytes(path.read_bytes() + b"x")
    actual = hashlib.md5(path.read_bytes()).hexdigest()
    with pytest.raises(ValueError) as error:
        cifar10.read(tmp_path)
    assert f"{path} has md5 {actual}, but the official archive has {expected}" in str(error.value)
    (check,) = cifar10.verify(tmp_path)
    assert check == (path.name, path.stat().st_size, actual, f"not official: that has {expected}", False)


def test_the_official_hashes_are_the_published_ones():
    assert cifar10_files.ARCHIVES == {"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
                                      "cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"}
    assert cifar10_files.BATCHES["test_batch"] == "40351d587109b95175f43aff81a1287e" and len(NAMES) == 6


def test_verify_tells_good_files_from_bad_ones(batches, tmp_path, monkeypatch):
    folder = write("binary folder", tmp_path, batches, monkeypatch)
    (folder / "data_batch_2.bin").unlink()
    (folder / "data_batch_3.bin").write_bytes(b"short")
    verdicts = {c.file: (c.verdict, c.good) for c in cifar10.verify(tmp_path)}
    assert verdicts["data_batch_1.bin"] == ("right size; there is no official hash", True)
    assert verdicts["data_batch_2.bin"] == ("missing", False)
    assert verdicts["data_batch_3.bin"] == ("wrong size", False)
    monkeypatch.setattr(cifar10_files, "ARCHIVE_LIMIT", 4)
    assert cifar10.verify(tmp_path)[2][3:] == ("too large", False)
    other = write("python folder", tmp_path / "other", batches, monkeypatch)
    monkeypatch.setattr(cifar10_files, "ARCHIVE_LIMIT", 1 << 28)
    check = cifar10.verify(other)[0]
    assert check.verdict == f"not official: that has {cifar10_files.BATCHES['data_batch_1']}" and check.good
    assert cifar10.verify() == []  # nothing in the cache


# --- where it is looked for ---

def test_the_places_are_tried_in_turn(batches, tmp_path, monkeypatch):
    assert cifar10.locate() is None
    in_cache = write("binary folder", tmp_path / "cache" / "cifar10", batches, monkeypatch)
    assert cifar10.locate() == ("binary", False, in_cache)
    expect(cifar10.read(download=False), batches)
    named = write("python archive", tmp_path / "named", batches, monkeypatch)
    monkeypatch.setenv("FASTNET_DATA", str(tmp_path / "named"))
    assert cifar10.locate() == ("python", True, named)
    given = write("python folder", tmp_path / "given", batches, monkeypatch)
    assert cifar10.locate(str(tmp_path / "given")) == ("python", False, given)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cifar10.locate("~/given") == ("python", False, given)


@pytest.mark.parametrize("by", ["--data-dir", "$FASTNET_DATA"])
def test_a_named_place_without_it_is_an_error_and_never_a_download(by, tmp_path, monkeypatch):
    def error(place):
        if by == "$FASTNET_DATA":
            monkeypatch.setenv("FASTNET_DATA", str(place))
        with pytest.raises(FileNotFoundError) as raised:
            load("cifar10", None if by == "$FASTNET_DATA" else place)
        return str(raised.value)

    assert error(tmp_path / "nowhere") == f"cifar10: {tmp_path}/nowhere (named by {by}) does not exist"
    (tmp_path / "empty").mkdir()
    assert error(tmp_path / "empty") == (
        f"cifar10: {tmp_path}/empty (named by {by}) holds no CIFAR-10: none of cifar-10-batches-py, "
        f"cifar-10-batches-bin, cifar-10-python.tar.gz, cifar-10-binary.tar.gz is in it")


@pytest.mark.parametrize(("form", "file"), [("python folder", "data_batch_4"), ("binary folder", "test_batch.bin")])
def test_an_incomplete_folder_names_the_missing_file(form, file, batches, tmp_path, monkeypatch):
    folder = write(form, tmp_path, batches, monkeypatch)
    (folder / file).unlink()
    with pytest.raises(FileNotFoundError) as error:
        cifar10.read(tmp_path)
    assert str(error.value) == f"cifar10: {folder} is incomplete: {file} is missing"


def test_an_empty_folder_of_the_right_name_is_incomplete(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(FileNotFoundError, match="is incomplete: data_batch_1 is missing"):
        cifar10.read(tmp_path)


# --- damaged files ---

def test_a_binary_label_of_ten_is_an_error(batches, tmp_path, monkeypatch):
    batches["data_batch_3"][1][5] = 10
    folder = write("binary folder", tmp_path, batches, monkeypatch)
    with pytest.raises(ValueError) as error:
        cifar10.read(tmp_path)
    assert str(error.value) == (f"cifar10: {folder}/data_batch_3.bin has label 10 in row 5 (the first is 0), but "
                                f"labels are 0..9")


def test_a_file_a_byte_long_is_an_error_in_an_archive_too(batches, tmp_path, monkeypatch):
    contents = {n: binary(*b) for n, b in batches.items()}
    contents["data_batch_5"] += b"x"
    path = write_archive(tmp_path / "cifar-10-binary.tar.gz", contents, "cifar-10-batches-bin", ".bin")
    official(monkeypatch, binary=path.read_bytes())
    with pytest.raises(ValueError, match=r"batches-bin/data_batch_5.bin has 36877 bytes, but 12 rows .* 36876"):
        cifar10.read(tmp_path)


def test_an_archive_that_ends_within_a_file_is_an_error(batches, tmp_path, monkeypatch):
    contents = {n: binary(*b) for n, b in batches.items()}
    path = write_archive(tmp_path / "cifar-10-binary.tar.gz", contents, "cifar-10-batches-bin", ".bin")
    whole, last = gzip.decompress(path.read_bytes()), next(iter(contents))  # they are written in reverse
    path.write_bytes(gzip.compress(whole[: whole.index(contents[last]) + 100]))
    official(monkeypatch, binary=path.read_bytes())
    with pytest.raises(ValueError, match=f"cifar-10-binary.tar.gz ends within cifar-10-batches-bin/{last}.bin"):
        cifar10.read(tmp_path)


@pytest.mark.parametrize("directories", [(), ("data_batch_2",)])
def test_an_archive_without_a_batch_is_an_error(directories, batches, tmp_path, monkeypatch):
    contents = {n: python2(*b) for n, b in batches.items() if n != "data_batch_2"}
    path = write_archive(tmp_path / "cifar-10-python.tar.gz", contents, "cifar-10-batches-py", "", directories)
    official(monkeypatch, python=path.read_bytes())
    with pytest.raises(ValueError) as error:
        cifar10.read(tmp_path)
    assert str(error.value) == f"cifar10: {path} has no file cifar-10-batches-py/data_batch_2"


def test_too_large_files_are_not_read(batches, tmp_path, monkeypatch):
    folder = write("python folder", tmp_path, batches, monkeypatch)
    with open(folder / "data_batch_1", "ab") as file:
        file.truncate(cifar10_files.LIMIT + 1)
    with pytest.raises(ValueError, match="data_batch_1 has 67108865 bytes, more than the 67108864 that a batch may"):
        cifar10.read(tmp_path)
    path = tmp_path / "other" / "cifar-10-python.tar.gz"
    path.parent.mkdir()
    with open(path, "wb") as file:
        file.truncate(cifar10_files.ARCHIVE_LIMIT + 1)
    with pytest.raises(ValueError, match="is larger than 268435456 bytes, so it is not the archive"):
        cifar10.read(path.parent)


# --- pickles that are not CIFAR-10's ---

def refuse(content):
    with pytest.raises(ValueError) as error:
        batch_pickle.read(content, ROWS, "FILE")
    return str(error.value)


def test_a_pickle_that_runs_a_command_is_refused_and_not_run(batches, tmp_path, monkeypatch):
    trace = tmp_path / "trace"
    content = b"cos\nsystem\n(S'touch " + str(trace).encode() + b"'\ntR."
    folder = write("python folder", tmp_path, batches, monkeypatch)
    (folder / "data_batch_1").write_bytes(content)
    with pytest.raises(ValueError) as error:
        cifar10.read(tmp_path)
    assert str(error.value) == (f"cifar10: {folder}/data_batch_1 wants to import os.system; it is not a CIFAR-10 file "
                                f"and was not run")
    assert not trace.exists()


@pytest.mark.parametrize(("module", "name"), [
    ("builtins", "eval"), ("__builtin__", "getattr"), ("builtins", "bytearray"), ("numpy", "load"), ("numpy", "zeros"),
    ("numpy.core.multiarray", "scalar"), ("_codecs", "decode"), ("copyreg", "_reconstructor"),
    ("numpy", "ndarray.tofile")])
def test_only_the_names_such_a_file_needs_are_admitted(module, name):
    for content in (f"c{module}\n{name}\n.".encode(),
                    b"\x80\x04\x8c" + bytes([len(module)]) + module.encode() + b"\x8c" + bytes([len(name)])
                    + name.encode() + b"\x93."):
        assert f"wants to import {module}.{name}; it is not a CIFAR-10 file" in refuse(content)


def test_a_refusal_is_one_short_printable_line():
    message = refuse(b"\x80\x04\x8c\x04os\n\x1b\x8c\xff" + b"A" * 255 + b"\x93.")
    assert message.isprintable() and len(message) < 200


@pytest.mark.parametrize("content", [
    b"", b"not a pickle", b"\x80\x04.", b"\x80\x02}.x", b"}(K\x01", b"N.",
    b"cnumpy\ndtype\n}b.",  # sets the state of one of our classes
    b"cnumpy\ndtype\n)\x81.",  # makes one without calling it
    b"cnumpy\ndtype\n(K\x01K\x02s.", b"Pid\n.", b"\x82\x01.",
    b"}(U\x04dataU\x04dataU\x06labels]u.",
    b"}U\x04datacnumpy.core.multiarray\n_reconstruct\n)Rs.",  # an array without content
    b"}U\x04datacnumpy.core.multiarray\n_reconstruct\n)RK\x01bs.",
    b"}U\x04datacnumpy.core.numeric\n_frombuffer\n)Rs."])
def test_what_is_no_batch_gives_one_clear_line(content):
    message = refuse(content)
    assert message.startswith("cifar10: FILE ") and "\n" not in message


@pytest.mark.parametrize("make", [python2, python3, lambda *b: python3(*b, protocol=5),
                                  lambda *b: python3(*b, protocol=2)])
def test_a_truncated_or_damaged_batch_gives_one_clear_line(make, batches):
    content = make(*batches["data_batch_1"])
    rng = np.random.default_rng(0)
    for length in [*range(60), *rng.integers(60, len(content) - 1, 60), len(content) - 1]:
        assert refuse(content[:length]).startswith("cifar10: FILE ")
    read = 0
    for _ in range(300):  # damage anywhere but in the pixels either shows or does no harm
        damaged = bytearray(content)
        damaged[rng.choice([rng.integers(0, 200), rng.integers(len(content) - 200, len(content))])] = rng.integers(256)
        try:
            pixels, labels = batch_pickle.read(bytes(damaged), ROWS, "FILE")
        except ValueError as error:
            assert str(error).startswith("cifar10: FILE ")
        else:
            read += 1
            assert pixels.shape == (ROWS, 3072) and pixels.dtype == np.uint8 and labels.shape == (ROWS,)
    assert 0 < read < 300


@pytest.mark.parametrize(("name", "content"), [
    ("a memo of 2^31 entries", b"Nr\xff\xff\xff\x7f."), ("the same in text", b"Np2147483647\n."),
    ("an array of 2^40 bytes", b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"."),
    ("bytes of 2^40 bytes", b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"."),
    ("a frame of 2^40 bytes", b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"."),
    ("millions of lists", b"]" * 1_000_000 + b".")])
def test_a_small_file_cannot_ask_for_much_memory(name, content):
    import tracemalloc

    tracemalloc.start()
    try:
        refuse(content)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000, name


@pytest.mark.parametrize(("change", "message"), [
    ({"data": None}, "has no array 'data'"),
    ({"data": [1, 2]}, "has no array 'data'"),
    ({"data": np.zeros((ROWS, 3072), np.int8)}, "holds data that are not uint8"),
    ({"data": np.zeros((ROWS, 3072))}, "holds data that are not uint8"),
    ({"data": np.zeros((ROWS - 1, 3072), np.uint8)}, "holds data of shape (11, 3072), but (12, 3072) is needed"),
    ({"data": np.zeros(ROWS * 3072, np.uint8)}, "holds data of shape (36864,), but (12, 3072) is needed"),
    ({"data": np.zeros((1,) * 9, np.uint8)}, "holds data of shape ?, but (12, 3072) is needed"),
    ({"labels": None}, "has no list 'labels' of whole numbers"),
    ({"labels": [0.5] * ROWS}, "has no list 'labels' of whole numbers"),
    ({"labels": [True] * ROWS}, "has no list 'labels' of whole numbers"),
    ({"labels": [1] * (ROWS + 1)}, "has 13 labels, but 12 are needed"),
    ({"labels": [1 << 70] * ROWS}, "cannot be read as a CIFAR-10 batch"),
])
def test_a_batch_of_the_wrong_content_is_refused(change, message, batches):
    pixels, labels = batches["data_batch_1"]
    for protocol in (2, 4, 5):
        content = pickle.dumps({"data": pixels, "labels": labels} | change, protocol)
        assert f"cifar10: FILE {message}" in refuse(content)


def test_pixels_must_be_as_many_as_the_shape_says(batches):
    content = python2(*batches["data_batch_1"])
    raw = batches["data_batch_1"][0].tobytes()
    short = content.replace(b"T" + struct.pack("<i", len(raw)) + raw, b"T" + struct.pack("<i", 5) + raw[:5])
    assert "holds 5 bytes of data, but (12, 3072) has 36864" in refuse(short)


@pytest.mark.parametrize("label", [10, -1, 256])
def test_a_pickled_label_outside_the_classes_is_an_error(label, batches, tmp_path):
    batches["test_batch"][1][11] = label
    contents = {n: python3(*b) for n, b in batches.items()}
    folder = write_folder(tmp_path / "cifar-10-batches-py", contents)
    with pytest.raises(ValueError) as error:
        cifar10.read(tmp_path)
    assert str(error.value) == (f"cifar10: {folder}/test_batch has label {label} in row 11 (the first is 0), but "
                                f"labels are 0..9")


# --- download ---

def test_without_network_one_line_says_what_to_do(tmp_path):
    with pytest.raises(ConnectionError) as error:
        load("cifar10")
    message = str(error.value)
    assert "cifar10: it cannot be downloaded (www.cs.toronto.edu: ConnectionRefusedError, " in message
    assert "--data-dir DIR" in message and "--data shapes10" in message and "\n" not in message
    assert message.count("ConnectionRefusedError") == len(cifar10.MIRRORS)


def test_without_leave_to_download_one_line_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        load("cifar10", download=False)
    assert str(error.value) == (f"cifar10: there is none in {tmp_path}/cache/cifar10; fetch it with 'fastnet data "
                                f"download', name its folder with --data-dir DIR, or use --data shapes10, which needs "
                                f"no files")


def test_mirrors_are_tried_in_turn_and_the_file_is_kept(batches, tmp_path, monkeypatch):
    import pooch

    archive = write("binary archive", tmp_path, batches, monkeypatch).read_bytes()
    asked = []

    def retrieve(url, known_hash, fname, path, progressbar):
        asked.append((url, known_hash, fname))
        if len(asked) == 1:
            raise ConnectionRefusedError
        if len(asked) == 2:
            raise ValueError("pooch says so when the hash is wrong")
        (path / fname).write_bytes(archive)
        return str(path / fname)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    expect(cifar10.read(), batches)
    assert [url for url, _, _ in asked] == list(cifar10.MIRRORS[:3])
    md5 = {name: f"md5:{md5}" for name, md5 in cifar10_files.ARCHIVES.items()}
    assert all(known == md5[name] and url.endswith(name) for url, known, name in asked)
    assert cifar10.locate() == ("binary", True, tmp_path / "cache" / "cifar10" / "cifar-10-binary.tar.gz")
    expect(cifar10.read(), batches)
    assert cifar10.download() == cifar10.locate() and len(asked) == 3  # it is there: nothing is asked again
    assert cifar10.download(tmp_path / "elsewhere").path.parent == tmp_path / "elsewhere" and len(asked) == 4


def test_a_mirror_with_another_file_is_named(monkeypatch, tmp_path):
    import pooch

    def retrieve(*arguments, **options):
        raise ValueError("another hash")

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    with pytest.raises(ConnectionError, match=r"\(www.cs.toronto.edu: wrong hash, "):
        cifar10.download(tmp_path / "new")


def test_every_mirror_has_an_archive_with_a_known_hash():
    for url in cifar10.MIRRORS:
        assert url.startswith("https://") and url.rsplit("/", 1)[1] in cifar10_files.ARCHIVES


def test_a_gzip_of_something_else_is_refused_by_its_hash(tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(gzip.compress(b"hello"))
    with pytest.raises(ValueError, match="but the official archive has c58f30108f718f92721af3b95e74349a"):
        cifar10.read(tmp_path)
