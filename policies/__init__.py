"""Policies: things with ``select_action(observation, info)``."""
