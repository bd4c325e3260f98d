"""A page to play with: what it draws (studio), how it looks (page, tabs)."""
