"""X-VLA (Zheng et al. 2025): Florence-2's encoder and a transformer with soft prompts for each domain (kind of robot
and data)."""
