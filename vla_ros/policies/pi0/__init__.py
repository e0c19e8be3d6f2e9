"""π0 and π0.5 (Physical Intelligence), of every size and in four layouts of checkpoint folders."""
