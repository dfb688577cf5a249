"""Other exact forms of the canonical graph's parts, and what they cost."""
