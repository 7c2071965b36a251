"""The daemon's process: one loop that admits drops, hands jobs to workers and finishes them."""
