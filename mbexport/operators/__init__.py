"""Where an inference spends its time, operator by operator, from each engine's own profiler."""
