"""π0 and π0.5 (Physical Intelligence), in all sizes and four layouts of checkpoint folders."""
