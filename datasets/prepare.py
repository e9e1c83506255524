"""Prepare a data set: python datasets/prepare.py NAME. Without a NAME, list the names."""

from __future__ import annotations

import sys

from ddep.data.datasets.prepare_command import main
from ddep.errors import UserError

if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
