"""What benchmarks/fidelity.py measures, a file for each bar."""
