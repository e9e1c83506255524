"""Pictures: segments over images, classes beside them, denoised images, contact sheets."""
