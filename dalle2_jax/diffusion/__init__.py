"""Schedules, equations, objectives, guidance and samplers of diffusion models."""
