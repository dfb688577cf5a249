"""For precision_limits.py, engines of narrow precision and doubles of such; for precision.py, all the rest."""
