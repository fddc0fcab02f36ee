"""`python -m ntk_resnet` is `ntk-resnet`."""

import sys

from ntk_resnet.cli.main import main

sys.exit(main())
