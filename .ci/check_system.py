"""Name the system libraries that are missing, in one line, with the command that installs them."""

import ctypes
import sys

# library -> Debian package; other Linux systems carry the same libraries under similar names
LIBRARIES = {
    "libGL.so.1": "libgl1",
    "libEGL.so.1": "libegl1",
    "libX11.so.6": "libx11-6",
    "libxkbcommon.so.0": "libxkbcommon0",
    "libdbus-1.so.3": "libdbus-1-3",
    "libfontconfig.so.1": "libfontconfig1",
    "libglib-2.0.so.0": "libglib2.0-0",
}


def missing_packages() -> list[str]:
    """Return the Debian packages of libraries that cannot be loaded; on other systems than Linux none is needed."""
    if not sys.platform.startswith("linux"):
        return []
    missing = []
    for library, package in LIBRARIES.items():
        try:
            ctypes.CDLL(library)
        except OSError:
            missing.append(package)
    return missing


if __name__ == "__main__":
    packages = missing_packages()
    if packages:
        command = f"sudo apt-get install -y {' '.join(packages)}"
        sys.exit(f"Missing system libraries (needed by the Slicer scene and the panel tests). Install them with: {command}")
