"""The packages of the wheel: `hierjax`, and `configs` as `hierjax/configs`; pyproject.toml has the rest."""

from setuptools import find_packages, setup

setup(
  packages=[*find_packages(include=["hierjax*"]), "hierjax.configs", "hierjax.configs.studies"],
  package_dir={"hierjax.configs": "configs", "hierjax.configs.studies": "configs/studies"},
)
