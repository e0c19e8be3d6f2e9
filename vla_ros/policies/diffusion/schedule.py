"""diffusers' DDPM and DDIM schedules as one expression per step, with all coefficients computed beforehand.

The `step` of diffusers looks up its coefficients at run time, and draws noise that cannot be passed in. Here a step is
`x ← clean * x0 + noisy * x + noise * ε + spread * z`, x0 the estimate of the clean actions, ε of the noise.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch

from vla_ros.core.errors import InputError
from vla_ros.policies.diffusion.config import DiffusionConfig


@dataclass(frozen=True)
class Step:
    """One denoising step. `signal` and `noise_level` are the square roots of ᾱ and 1 - ᾱ at `time`."""

    time: int
    signal: float
    noise_level: float
    clean: float
    noisy: float
    noise: float
    spread: float


def make_scheduler(config: DiffusionConfig) -> Any:
    """diffusers' scheduler with the policy's settings, which adds noise in training."""
    from diffusers import DDIMScheduler, DDPMScheduler  # takes a second, and few policies need it

    kind = {"DDPM": DDPMScheduler, "DDIM": DDIMScheduler}[config.noise_scheduler_type]
    with torch.device("cpu"):  # its tables are needed even if the network is built on the meta device
        return kind(
            num_train_timesteps=config.num_train_timesteps, beta_start=config.beta_start, beta_end=config.beta_end,
            beta_schedule=config.beta_schedule, clip_sample=config.clip_sample,
            clip_sample_range=config.clip_sample_range, prediction_type=config.prediction_type,
        )


def make_steps(config: DiffusionConfig, num_steps: int) -> tuple[Step, ...]:
    """The `num_steps` steps of inference, noisiest first.

    DDPM: Ho et al. 2020 (https://arxiv.org/abs/2006.11239), eq. 7 with the smaller variance. DDIM: Song et al. 2020
    (https://arxiv.org/abs/2010.02502), eq. 12 with η = 0. Raises InputError for an unsupported number of steps.
    """
    if not 1 <= num_steps <= config.num_train_timesteps:
        raise InputError(f"num_steps {num_steps}, expected 1 to {config.num_train_timesteps}, the number it was "
                         "trained with")
    scheduler = make_scheduler(config)
    scheduler.set_timesteps(num_steps)
    stride = config.num_train_timesteps // num_steps
    cumulative = [float(value) for value in scheduler.alphas_cumprod.double()]
    steps = []
    for time in scheduler.timesteps.tolist():
        alpha = cumulative[time]
        before = cumulative[time - stride] if time >= stride else 1.0
        if config.noise_scheduler_type == "DDIM":
            clean, noisy, noise, spread = math.sqrt(before), 0.0, math.sqrt(1 - before), 0.0
        else:
            ratio = alpha / before
            beta = 1 - ratio
            clean = math.sqrt(before) * beta / (1 - alpha)
            noisy = math.sqrt(ratio) * (1 - before) / (1 - alpha)
            noise = 0.0
            spread = math.sqrt(max((1 - before) / (1 - alpha) * beta, 1e-20)) if time > 0 else 0.0
        steps.append(Step(time, math.sqrt(alpha), math.sqrt(1 - alpha), clean, noisy, noise, spread))
    return tuple(steps)


torch.export.register_dataclass(Step)  # its numbers are constants in exported graphs
