"""Engines of narrow precision, real ones and doubles, for precision_limits.py."""
