"""Benchmarks: they print what they measure, as ratios to a floor that is measured in the same run."""
