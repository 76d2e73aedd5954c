"""What pyproject.toml cannot say: the CPU kernels are compiled into the wheel where that is possible.

That takes a C++ compiler and the PyTorch that is installed, so `pip wheel --no-build-isolation .`: an isolated build
has no PyTorch, and its wheel, for any platform, carries the sources, which are compiled at first use.
"""

import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

sys.path.insert(0, str(Path(__file__).parent))  # a build backend does not look here

from aligncli_ext.build import BuildError, compile_library, find_compiler, library_name


class BuildWithKernels(build_py):
    """Python files, and beside them the library of kernels."""

    kernels_built = False

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        library = Path(self.build_lib) / "aligncli_ext" / "lib" / library_name()
        library.parent.mkdir(parents=True, exist_ok=True)
        try:
            compile_library(find_compiler(), library)
            self.kernels_built = True
        except BuildError as error:
            library.unlink(missing_ok=True)
            library.parent.rmdir()
            self.warn(f"without the CPU kernels, which are built at first use instead: {error}")


class WheelWithKernels(bdist_wheel):
    """For this platform where it holds a library, and for any Python: the library calls none of Python's functions."""

    def run(self) -> None:
        self.run_command("build_py")
        self.root_is_pure = not self.get_finalized_command("build_py").kernels_built
        self.distribution.has_ext_modules = lambda: not self.root_is_pure  # decides where files are installed
        super().run()

    def get_tag(self) -> tuple[str, str, str]:
        python, abi, platform = super().get_tag()
        return (python, abi, platform) if self.root_is_pure else ("py3", "none", platform)


setup(cmdclass={"build_py": BuildWithKernels, "bdist_wheel": WheelWithKernels})
