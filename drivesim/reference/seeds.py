"""Which road seeds are for what: the one place that knows the borders."""

FIRST_VALIDATION_SEED = 890_000
"""Training takes the seeds below; from here on roads choose between training runs."""

FIRST_HELD_OUT_SEED = 900_000
"""From here on no training run sees a road: published figures and the embedded scenes (the first hundred)."""

FIRST_RESERVED_SEED = 950_000
"""From here on roads are never recorded; they are kept for later comparisons."""

LAST_HELD_OUT_SEED = FIRST_RESERVED_SEED - 1
