"""Images per second of the mappers, next to torchvision's transforms doing the same.

Both sides read the same files, resize, crop, recolour and flip them with equal probabilities, and
make the same tensors: for denoising a noisy image and its noise, for segmentation an image and one
mask for each class or object.
"""
