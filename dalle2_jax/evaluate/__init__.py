"""unCLIP §5: numbers for models and samples."""
