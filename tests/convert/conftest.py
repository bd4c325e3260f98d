"""transformers and open_clip import torchvision, which may be of another build."""

import importlib

importlib.import_module("torchvision_names")
