"""The layout of the project is part of its contract: the folder is the list, and who may import whom is data."""

import ast
import configparser
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import fastnet
from fastnet.check.cases import cases, ops

ROOT = Path(fastnet.__file__).parents[1]
PACKAGES = {"fastnet": ROOT / "fastnet", "fastnet.kernels": ROOT / "kernels", "fastnet.bench": ROOT / "bench"}

# Package or module -> which others of ours it may import. Inside a package any import is fine.
BELOW_TRAIN = {"nn", "optim", "data", "backend", "plots", "arrays", "devices", "shapes", "paths", "functions",
               "shadows", "graphs", "unmade"}
MAY_IMPORT: dict[str, set[str]] = {
    "arena": set(),
    "arrays": {"arena"},
    "shapes": set(),
    "devices": set(),
    "graphs": set(),
    "shadows": {"arrays"},
    "unmade": {"arrays", "backend"},
    "timer": set(),
    "plots": set(),
    "paths": set(),
    "ops": {"shapes", "arrays", "functions"},  # functions: dropout draws its mask with Philox
    "functions": {"shapes", "arrays", "ops"},  # ops: a perceptron's step is theirs, one after the other
    "kernels": {"shapes", "arrays", "paths", "functions.philox"},  # and the function that a kernel is the twin of
    "backend": {"ops", "kernels", "functions", "arrays"},
    "nn": {"backend", "arrays", "devices", "shapes", "paths", "functions", "unmade"},
    "optim": {"backend", "arrays", "shapes", "paths", "functions"},
    "data": {"backend", "arrays", "devices", "shapes", "paths", "functions", "unmade"},
    "check": {"nn", "backend", "ops", "functions", "arrays", "devices", "shapes", "optim"},
    "train": BELOW_TRAIN,
    "environment": {"arrays", "devices", "paths", "kernels"},
    "lab": BELOW_TRAIN | {"train"},
    "reports": BELOW_TRAIN | {"train", "lab", "check", "timer"},  # check: the reports' gradient checks
}
CLI = {path.stem for path in (ROOT / "fastnet").glob("cli*.py")}
ALL_BUT = {"bench": CLI}
UNLIMITED = {*CLI, "__main__", ""}  # "" is fastnet/__init__.py, the public names


def sources():
    """(dotted name, path) of every module of ours."""
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            yield ".".join([package, *(p for p in parts if p != "__init__")]), path


SOURCES = dict(sources())


def imports(path):
    """The dotted names that a file imports, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            assert all(alias.name != "*" for alias in node.names), f"{path}:{node.lineno}: import *"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def forbidden(name, imported):
    """Whether module `name` must not import `imported`, both dotted."""
    layer = name.removeprefix("fastnet").removeprefix(".").partition(".")[0]
    parts = imported.split(".")
    if parts[0] != "fastnet" or layer in UNLIMITED:
        return False
    if layer in ALL_BUT:
        return bool(ALL_BUT[layer] & set(parts[1:2]))
    if len(parts) == 1:
        return True  # the public names load everything
    if name.startswith("fastnet.kernels.") and imported.startswith("fastnet.kernels."):
        return name.split(".")[2:3] != parts[2:3]  # helpers of the same backend only
    if layer == "kernels" and imported.startswith(f"fastnet.functions.{name.rpartition('.')[2]}."):
        return False
    return parts[1] != layer and not {parts[1], ".".join(parts[1:3])} & MAY_IMPORT[layer]


@pytest.mark.parametrize("name", SOURCES)
def test_imports_follow_the_table(name):
    wrong = [imported for imported in imports(SOURCES[name]) if forbidden(name, imported)]
    assert not wrong


@pytest.mark.parametrize(("name", "imported", "verdict"), [
    ("fastnet.ops.linear", "fastnet.backend.run", True),
    ("fastnet.ops.linear", "fastnet.arrays.Array", False),
    ("fastnet.ops.huber", "fastnet.ops._targets.check", False),
    ("fastnet.arrays", "fastnet.paths", True),
    ("fastnet.kernels.cpu.linear", "fastnet.kernels.cuda.linear", True),
    ("fastnet.kernels.cpu.linear", "fastnet.kernels.cpu._gemm", False),
    ("fastnet.kernels.cpu.dropout", "fastnet.functions.philox.split_key", False),
    ("fastnet.kernels.cpu.dropout", "fastnet.functions.sgd_update.run", True),
    ("fastnet.kernels.cpu.adam_update", "fastnet.functions.adam_update.factors", False),
    ("fastnet.nn.layers", "fastnet.ops.linear", True),
    ("fastnet.check.op", "fastnet.backend", False),
    ("fastnet.check.op", "fastnet.train.step", True),
    ("fastnet.bench.steps", "fastnet.cli", True),
    ("fastnet.bench.steps", "fastnet", False),
    ("fastnet.train.loop", "fastnet", True),
    ("fastnet.cli", "fastnet.train.loop", False),
    ("fastnet.nn.layers", "numpy", False),
])
def test_the_table_can_fail(name, imported, verdict):
    assert forbidden(name, imported) is verdict


def test_every_layer_is_in_the_table():
    layers = {name.split(".")[1] for name in SOURCES if "." in name}
    assert layers <= {*MAY_IMPORT, *ALL_BUT, *UNLIMITED}


@pytest.mark.parametrize("path", sorted(ROOT.glob("tests/*.py")), ids=lambda p: p.stem)
def test_tests_import_by_name(path):
    assert list(imports(path))


@pytest.mark.parametrize("op", ops())
def test_every_op_has_inputs(op):
    """An op without test inputs fails here; `cases` says where to add them."""
    found = cases(op)
    assert found
    assert len({case.label for case in found}) == len(found)
    module = importlib.import_module(f"fastnet.ops.{op}")
    assert callable(module.forward)
    assert callable(module.backward)


def test_an_op_without_inputs_says_so():
    with pytest.raises(ValueError, match=r"op 'new' has no test inputs; add them to fastnet/check/cases\.py"):
        cases("new")


def test_the_list_of_ops_is_the_folder():
    assert ops() == sorted(p.stem for p in (ROOT / "fastnet" / "ops").glob("[!_]*.py"))


KERNELS = [(backend, path) for backend in ("cpu", "cuda")
           for path in sorted((ROOT / "kernels" / backend).glob("[!_]*.py"))]


@pytest.mark.parametrize(("backend", "path"), [pytest.param(*row, id=f"{row[0]}-{row[1].stem}") for row in KERNELS])
def test_kernel_is_a_pair_or_a_function(backend, path):
    """Read from the text, so that CUDA files are looked at without CUDA too."""
    tree = ast.parse(path.read_text())
    defined = {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
    defined |= {alias.asname or alias.name for n in tree.body if isinstance(n, ast.ImportFrom) for alias in n.names}
    if (ROOT / "fastnet" / "ops" / path.name).exists():
        assert {"forward", "backward", "supports"} <= defined
    else:
        assert (ROOT / "fastnet" / "functions" / path.name).exists(), f"{path.name} is neither an op nor a function"
        assert {"run", "supports"} <= defined


def test_what_falls_back_is_known():
    """The ops that run on the reference on a CPU, because no kernel is written: none."""
    written = {path.stem for backend, path in KERNELS if backend == "cpu"}
    assert set(ops()) - written == set()


def test_functions_run():
    for path in (ROOT / "fastnet" / "functions").glob("[!_]*.py"):
        assert callable(importlib.import_module(f"fastnet.functions.{path.stem}").run)


def test_package_list_is_the_folders():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = config["options"]["packages"].split()
    assert sorted(listed) == sorted(name for name, path in SOURCES.items() if path.name == "__init__.py")
    places = dict(line.split(" = ") for line in config["options"]["package_dir"].strip().splitlines())
    assert places == {name: str(folder.relative_to(ROOT)) for name, folder in PACKAGES.items()}


def in_a_fresh_process(code, folder=ROOT):
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("module", ["fastnet", "fastnet.check", "fastnet.backend", "fastnet.arrays"])
def test_import_is_light(module):
    """Neither compilers nor plotting nor a peer library are loaded before something needs them."""
    heavy = {"numba", "llvmlite", "cupy", "matplotlib", "scipy", "torch"}
    done = in_a_fresh_process(f"import {module}, sys; print(*({heavy!r} & set(sys.modules)))", ROOT / "tests")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_kernels_is_no_top_level_package():
    done = in_a_fresh_process("import kernels")
    assert done.returncode == 1
    assert "ImportError: this folder is the package fastnet.kernels" in done.stderr
