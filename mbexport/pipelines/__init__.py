"""The pipeline file: which networks, what they must hold, and where they go; checked, planned and run."""
