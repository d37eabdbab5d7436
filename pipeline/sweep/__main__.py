"""python -m pipeline.sweep SPACE"""

from pipeline.sweep.command import main
from serve.command import run_command

if __name__ == "__main__":
    run_command(main)
