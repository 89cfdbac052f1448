"""Measurements: ratios and curves, printed with the machine they were taken on; never tests."""
