"""The worker's process: one device, one resident model, one picture after another."""
