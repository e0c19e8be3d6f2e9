"""policy_node in the network namespace named by NETWORK_NAMESPACE (see network_faults.py)."""

import os
import sys

from link import enter_namespace

if __name__ == "__main__":
    enter_namespace(os.environ["NETWORK_NAMESPACE"])
    from vla_ros.nodes.policy_node import main  # the middleware looks at the network only now

    sys.exit(main())
