"""Diffusion Policy (Chi et al. 2023): a U-Net that denoises actions under a history of observations."""
