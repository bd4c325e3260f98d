"""unCLIP §4: what the latent space of CLIP holds."""
