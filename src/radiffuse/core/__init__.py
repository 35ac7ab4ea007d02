"""The mathematics of denoising diffusion: schedules, forward process, samplers, timesteps."""
