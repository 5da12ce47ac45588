"""``ray start`` of a node that listens on loopback alone, which Ray itself does on Windows and macOS only."""

from ray._private import services  # type: ignore[import-not-found] # in an environment of its own
from ray.scripts.scripts import main  # type: ignore[import-not-found]

if __name__ == "__main__":
    services.get_node_ip_address = lambda _address=None: "127.0.0.1"
    main()
