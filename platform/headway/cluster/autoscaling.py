"""Ray's own settings of its autoscaler (v2), as variables of the head's environment: it has no others."""

from __future__ import annotations

INTERVAL_S = 5


def environment(boot_limit_minutes: float | None = None, interval_s: int = INTERVAL_S) -> dict[str, str]:
    """What the head needs before its Ray is started, so that `headway.cluster.provider` gets on with it.

    Args:
        boot_limit_minutes: of the cluster's file. The provider keeps to it; Ray's own limit is only behind it.
        interval_s: seconds between two looks of the autoscaler.
    """
    boot_s = round(60 * (boot_limit_minutes or 15.0))
    return {
        "RAY_enable_autoscaler_v2": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": str(interval_s),
        # A request waits inside the provider, each in a thread of its own: none waits behind another.
        "AUTOSCALER_MAX_LAUNCH_BATCH": "1",
        "AUTOSCALER_MAX_CONCURRENT_LAUNCHES": "100",
        # Longer than a request waits there: else Ray would ask for a second machine beside the first.
        "RAY_AUTOSCALER_RECONCILE_REQUEST_STATUS_TIMEOUT_S": "900",
        "RAY_AUTOSCALER_RECONCILE_ALLOCATE_STATUS_TIMEOUT_S": str(boot_s + 120),
        # Machines on their way that nobody needs any more are let go, as are idle ones.
        "RAY_AUTOSCALER_PENDING_NODE_IDLE_TIMEOUT_S": "60",
        "RAY_AUTOSCALER_RECONCILE_TERMINATING_STATUS_TIMEOUT_S": "60",
    }
