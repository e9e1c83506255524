from __future__ import annotations

import numpy as np
import torch

from ddep.drawing.denoising import draw_denoising


def test_denoising_is_drawn_noisy_denoised_clean() -> None:
    pixel_mean, pixel_std = [103.5, 116.3, 123.7], [57.4, 57.1, 58.4]
    mean = np.array(pixel_mean)[:, None, None]
    std = np.array(pixel_std)[:, None, None]
    generator = np.random.default_rng(0)
    clean = generator.uniform(60, 190, (3, 5, 7))
    noise = generator.standard_normal((3, 5, 7))
    estimate = generator.uniform(60, 190, (3, 5, 7))
    sigma = 0.2
    noisy = ((clean - mean) / std + sigma * noise) / np.sqrt(1 + sigma**2)
    picture = draw_denoising(
        {"image": torch.tensor(noisy), "noise": torch.tensor(noise), "sigma": sigma},
        {"denoised": torch.tensor((estimate - mean) / std)},
        formulation="scaled",
        pixel_mean=pixel_mean,
        pixel_std=pixel_std,
        image_format="BGR",
    )
    expected = np.concatenate([clean + sigma * noise * std, estimate, clean], axis=2)
    expected = expected[::-1].transpose(1, 2, 0)  # BGR to RGB
    assert picture.shape == (5, 21, 3)
    assert np.abs(picture - expected.clip(0, 255)).max() <= 0.51
