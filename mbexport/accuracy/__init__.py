"""What a runtime's answers are held to, and where a wrong one comes from."""
