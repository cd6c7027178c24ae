"""Measurements: each module is a command that prints a table and writes json; README.md names one per figure."""
