"""`python -m ntk_resnet.cli`, the same as `python -m ntk_resnet`."""

import sys

from ntk_resnet.cli.main import main

sys.exit(main())
