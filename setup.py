from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="retinanet_jax",
    version="0.1.0",
    description="RetinaNet and the focal loss in JAX and Flax, for CPU, GPU and TPU.",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    keywords=["object detection", "RetinaNet", "focal loss", "JAX", "Flax"],
    project_urls={"Paper": "https://arxiv.org/abs/1708.02002"},
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    # The experiments are installed inside the package, for --config=NAME.
    packages=[
        *find_packages(include=["retinanet_jax", "retinanet_jax.*"]),
        "retinanet_jax.config.experiments",
        "retinanet_jax.config.experiments.paper",
    ],
    package_dir={
        "retinanet_jax.config.experiments": "experiments",
        "retinanet_jax.config.experiments.paper": "experiments/paper",
    },
    package_data={
        "retinanet_jax.reports": ["style.css"],
    },
    install_requires=[
        "absl-py>=2.1",
        "array-record>=0.5",
        "filelock>=4.2",  # of the workdir, and of JAX's compilation cache with a size limit
        "flatbuffers>=24.3",  # jax.export uses it and does not say so
        "flax>=0.12",
        "grain>=0.2.12",
        "importlib_resources>=6",  # tensorflow-datasets uses it and does not say so
        "jax>=0.10",
        "jaxtyping>=0.3",
        "matplotlib>=3.9",
        "ml-collections>=1.0",
        "numpy>=2.0",
        "opencv-python-headless>=4.11",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.12,<1.0",
        "pillow>=10.1",
        "pycocotools>=2.0.8",
        "pyyaml>=6",  # of YOLO datasets
        "rich>=13",
        "safetensors>=0.8",
        "submitit>=1.5",
        "tensorboardX>=2.6.2",
        "tensorflow-datasets>=4.9.8",
        "tqdm>=4.66",
    ],
    extras_require={
        "cuda": ["jax[cuda13]>=0.10"],
        "datasets": ["datasets>=4.0"],
        "docs": ["furo>=2025.9", "myst-parser>=5", "sphinx>=8.2"],
        "fast": ["hotcoco>=1.3"],
        "hub": ["huggingface_hub>=1.0"],
        "mlflow": ["mlflow>=3.0"],
        "onnx": ["onnx>=1.17"],
        "serve": ["gradio>=6.0,<7"],
        "tpu": ["jax[tpu]>=0.10"],
        "wandb": ["wandb>=0.20"],
        "test": [
            "beartype>=0.19",
            "furo>=2025.9",
            "gradio>=6.0,<7",
            "hotcoco>=1.3",
            "huggingface_hub>=1.0",
            "hypothesis>=6.100",
            "markdown-it-py>=3",
            "myst-parser>=5",
            "onnx>=1.17",
            "onnxruntime>=1.20",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff>=0.9",
            "sphinx>=8.2",
        ],
    },
    entry_points={"console_scripts": ["retinanet-jax=retinanet_jax.cli.app:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
)
