"""What the launchers of kernels that go over places and channels share (`channels.cuh`)."""

from fastnet.kernels.cuda._launch import WARP, blocks

PACK = 16  # bytes that a thread handles at a time


def units(channels, dtype):
    """How many threads the channels of one place take: sixteen bytes each where that goes without a rest."""
    many = PACK // dtype.itemsize
    return channels // many if channels % many == 0 else channels


def tiles(chunks, channels, dtype):
    """How many blocks for that many chunks of rows."""
    return blocks(chunks * -(-units(channels, dtype) // WARP))
