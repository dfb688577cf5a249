"""The parts of ``benchmarks/peers.py``: what is compared, how its files are made, measured, judged and shown."""
