"""The packages of the extra ``export``, which are not part of the default installation."""

from __future__ import annotations

from importlib.util import find_spec

from service.errors import ConfigError, Fault

PARQUET = ("pyarrow",)
ICEBERG = ("pyarrow", "pyiceberg", "sqlalchemy")


def require(packages: tuple[str, ...]) -> None:
    """Check that packages of the extra are installed.

    Raises:
        ConfigError: one is missing; the fault says how to install it in a clone and in the image.
    """
    missing = [package for package in packages if not _is_installed(package)]
    if missing:
        raise ConfigError(
            [
                Fault(
                    "export",
                    f"needs {', '.join(missing)}. In a clone: .venv/bin/pip install '.[export]'."
                    " For the image: docker build --build-arg REQUIREMENTS=requirements-export.txt",
                )
            ]
        )


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # the module is blocked in sys.modules
        return False
