"""Run as a program: it does nothing, until the process that has started it is gone; see `headway.driver.embedded`."""

import os
import time

if __name__ == "__main__":
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1)
