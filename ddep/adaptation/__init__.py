"""Fine-tuning with unlabelled images: one method a file."""
