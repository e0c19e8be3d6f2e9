"""LeRobot datasets: read in versions 2.1 and 3, written in version 3."""
