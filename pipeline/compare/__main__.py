"""Put runs side by side: `python -m pipeline.compare`. The command is in `command.py`."""

from pipeline.compare.command import main
from serve.command import run_command

if __name__ == "__main__":
    run_command(main)
