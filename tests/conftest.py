"""Settings that have to stand before any test is imported, and fixtures that several test files share."""

import builtins
import os

import pytest

# OpenMP's threads wait by spinning. Where other programs hold a core, that makes each of the many small parallel loops
# here take as long as the scheduler's time slice.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.fixture
def run(capsys):
    """Run a command in this process: (exit status, standard output, standard error)."""
    from fastnet import cli

    def command(*arguments):
        capsys.readouterr()
        try:
            status = cli.main([str(a) for a in arguments])
        except SystemExit as stopped:  # of the parser
            status = stopped.code
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return status, out, err
    return command


@pytest.fixture
def without(monkeypatch):
    """`without(package)` makes a package, and all that is in it, impossible to import."""
    real = builtins.__import__

    def hide(package):
        def imported(name, *arguments):
            if name.partition(".")[0] == package:
                raise ImportError(name)
            return real(name, *arguments)

        monkeypatch.setattr(builtins, "__import__", imported)
    return hide


@pytest.fixture
def emulated_device(monkeypatch):
    """A device called "emulated", on which the CUDA kernels run without a GPU."""
    pytest.importorskip("numba_cuda", reason="the extra gpu-test is not installed")  # standardize_batch asks it
    from emulator import arrays, engine

    from fastnet import devices

    monkeypatch.setitem(devices.LIBRARIES, "emulated", lambda: arrays.NAMESPACE)
    engine.install()
