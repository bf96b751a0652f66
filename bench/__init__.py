"""Benchmarks, imported as `fastnet.bench`."""
