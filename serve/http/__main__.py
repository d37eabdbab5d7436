"""Start the server: `python -m serve.http`. The command is in `serve/http/command.py`."""

from serve.command import require_extra, run_command

if __name__ == "__main__":
    require_extra("serve", "httptools")
    from serve.http.command import main

    run_command(main)
