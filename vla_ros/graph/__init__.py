"""Graphs of processes: started, watched and ended by a program."""
