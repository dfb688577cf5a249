"""int8 files of a float32 artifact: which tensors are rounded, to which steps, and what that costs."""
