"""``python -m service`` is the same as ``flow-outcomes``."""

from service.cli import main

raise SystemExit(main())
