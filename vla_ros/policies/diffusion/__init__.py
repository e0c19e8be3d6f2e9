"""Diffusion Policy (Chi et al. 2023): a U-Net that denoises actions, conditioned on a history of observations."""
