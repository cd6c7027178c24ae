"""What every metric returns: a value, and whether it could be measured at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(kw_only=True, slots=True, frozen=True)
class MetricResult:
    """One measured number. Where ``is_valid`` is False the value is 0.0 and must not be used."""

    value: float
    is_valid: bool = True

    def as_dict(self) -> dict[str, float | bool]:
        """Return plain Python values, as ``info`` and json want them."""
        return {"value": float(self.value), "is_valid": bool(self.is_valid)}


NOT_MEASURABLE = MetricResult(value=0.0, is_valid=False)

Metrics = Mapping[str, MetricResult]
"""Metric results by name; names carry their units."""
