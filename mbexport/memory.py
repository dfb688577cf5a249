def check_memory(spec): pass
