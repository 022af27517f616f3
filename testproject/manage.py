#!/usr/bin/env python
"""Django's command line for the site: runserver, verify_smtp, check, ..."""

import os
import sys
from pathlib import Path

# `testproject` itself must be importable, so the folder above it stands on the path, not this one.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "testproject.website.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
