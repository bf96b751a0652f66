"""Optimizers, schedules and penalties."""
