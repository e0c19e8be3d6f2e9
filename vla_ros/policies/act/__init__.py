"""ACT (Zhao et al. 2023): one pass from images and state to a chunk."""
