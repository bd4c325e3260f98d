"""How fast a model draws and what it takes, stage by stage, beside another library."""
