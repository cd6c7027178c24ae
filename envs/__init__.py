"""Gymnasium environments of drivesim; they are registered by ``import drivesim``."""
