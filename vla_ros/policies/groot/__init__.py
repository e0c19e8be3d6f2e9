"""GR00T N1, N1.5, N1.6 and N1.7 (NVIDIA 2025): a vision-language model and a diffusion transformer for actions."""
