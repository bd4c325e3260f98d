"""unCLIP §2.1: from a CLIP image embedding to a picture."""
