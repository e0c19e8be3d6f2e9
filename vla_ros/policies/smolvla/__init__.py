"""SmolVLA (Shukor et al. 2025): a small vision-language model and a flow-matching expert."""
