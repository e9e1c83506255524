"""Pictures: segments over images, denoised images, contact sheets."""
