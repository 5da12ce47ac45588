"""``python -m service.export``: the process in which the daemon runs an export."""

from service.export.worker import main

if __name__ == "__main__":
    main()
