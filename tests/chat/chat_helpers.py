"""Types of the fixtures here."""

import subprocess
from collections.abc import Callable

Az = Callable[..., subprocess.CompletedProcess[str]]
