"""Recordings of other kinds -> scenes: readers of their files, and what makes a scene of a log."""
