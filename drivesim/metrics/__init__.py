"""Measures of driving and of pictures; every result says whether it could be measured."""
