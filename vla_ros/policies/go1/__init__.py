"""GO-1 and GO-1 Air (AgiBot 2025): InternVL2.5, a latent planner, and an action expert trained by diffusion."""
