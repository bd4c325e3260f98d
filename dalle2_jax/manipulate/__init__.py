"""unCLIP §3: image manipulations: latents, variations, interpolations, text diffs."""
