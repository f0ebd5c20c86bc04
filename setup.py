"""The wheel without dev.py, which is for the repository alone; all else is in pyproject.toml."""

from setuptools import setup
from setuptools.command.build_py import build_py

OURS_ALONE = ("dev", "setup")


class Product(build_py):
    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        return [
            each
            for each in super().find_package_modules(package, package_dir)
            if each[1] not in OURS_ALONE
        ]


setup(cmdclass={"build_py": Product})
