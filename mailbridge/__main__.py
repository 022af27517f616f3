"""`python -m mailbridge`: the same as the command `mailbridge`."""

from mailbridge.cli import main

raise SystemExit(main())
