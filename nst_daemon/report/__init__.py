"""What people look at beside the picture."""
