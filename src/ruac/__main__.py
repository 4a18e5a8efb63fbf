"""`python -m ruac` is `ruac`."""

import sys

from ruac.cli import main

sys.exit(main())
