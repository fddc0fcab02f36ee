"""`python -m ntk_resnet` is `ntk-resnet`."""

import sys

from ntk_resnet.cli import main

sys.exit(main())
