"""unCLIP §2.2: from a caption to a CLIP image embedding."""
