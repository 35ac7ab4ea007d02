"""Synthesis of films conditioned on DINO embeddings (Jimenez-Perez et al. 2024, arXiv 2407.11594), as one slice.

networks    encoder (DINO, frozen), dino and views (training a small one), autoencoder, denoiser (of latents), hub
synthesizer the networks together on disk, a pipeline that diffusers loads; training: the stages that make one
sampling    noise and embeddings to latents to films; strategies: new embeddings from those of real images
generation  films with their provenance, from a synthesizer; denoiser_generation: images of a denoiser of pixels
embedding   outputs of frozen networks for a data set, kept on disk
judging     fidelity and copies, in the features of a feature_network
zero-shot   segments (of self-attention), lungs (the rule that names them)

Films are float32 ``(B, C, rows, columns)`` in [-1, 1]; latents ``(B, c, h, w)``, of standard deviation 1; an embedding
is a row of length 1 from the encoder, features are a row from whatever network images are judged with. To sample is to
run the reverse process; to generate is to write images with their provenance.
"""
