"""What a step of training takes, with each option side by side."""
