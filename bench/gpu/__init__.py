"""Everything that only a card can tell, in one command: `python -m fastnet.bench.gpu`."""
