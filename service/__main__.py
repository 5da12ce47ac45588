"""``python -m service``: the same as ``flow-outcomes``."""

from service.cli import main

raise SystemExit(main())
