"""Layers, containers, initialisers and the table of models."""
