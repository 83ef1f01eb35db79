"""What Ray's node gets in place of a dashboard's agent: says that there is no such service, and stays as long as the node does.

A node does not come up before its agent has written the ports of three services into the session's folder, -1 for none. It ends
with its agent. Ray's own takes two seconds of a core to say the same where no dashboard asks it anything.

A script of the standard library: ``python -S no_agent.py SESSION_FOLDER``, with the node's id in the environment.
"""

from __future__ import annotations

import os
import sys
import time

_SERVICES = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port")
_EVERY_S = 1.0


def main() -> None:
    """Write the ports, then wait until the parent has ended."""
    parent = int(os.environ.get("RAY_RAYLET_PID") or os.getppid())  # the raylet may be gone before this line is reached
    folder, node = sys.argv[1], os.environ["RAY_NODE_ID"]
    for service in _SERVICES:
        file = os.path.join(folder, f"{service}_{node}")
        with open(f"{file}.part", "w") as part:
            part.write("-1")
        os.rename(part.name, file)
    while os.getppid() == parent:
        time.sleep(_EVERY_S)


if __name__ == "__main__":
    main()
