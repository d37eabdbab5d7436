"""What happens when the SavedModel cannot be written."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# A file size limit is a full disk that needs no privileges.
SCRIPT = """
import resource, signal, sys
from pathlib import Path
import models
from export.saved_model import export_saved_model
from models.options import LenetOptions

model = models.build(LenetOptions(), (28, 28, 1), 10, mean=[0.5], std=[0.25])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    export_saved_model(model, Path(sys.argv[1]))
except OSError as error:
    print(error.filename)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_full_disk_is_an_operating_system_error_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run" / "saved_model"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(path)
    assert list(path.parent.iterdir()) == []
