"""One file that can be shipped, served, verified and made again."""
