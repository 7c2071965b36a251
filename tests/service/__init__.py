"""Tests of the daemon's process."""
