"""The fourth system as one slice: encoder, autoencoder, latent denoiser, drawing, judging, zero-shot."""
