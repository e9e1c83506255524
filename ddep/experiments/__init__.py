"""What comes out of several runs, side by side."""
