"""Fuzzing of everything that reads a file or an option: mutators, targets, the watch over them, the kept inputs."""
