"""Reference decoders: other ways to draw the next frame with a transformer of the same parameter budget.

Their weights are random, because what a frame costs does not depend on them; each runs from end to end, from an
action to a picture. They are measured by ``benchmarks/speed.py`` and used for nothing else.
"""
