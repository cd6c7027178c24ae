"""Measurements: commands that print a table and write json; README.md names one per published figure."""
