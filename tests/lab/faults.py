"""Failures on request: what the next calls of an action shall suffer."""
import threading

KINDS = {
    "throttle": "Throttling, HTTP 400, nothing carried out",
    "status": "an HTTP status (500 when not given) with an AWS error body, nothing carried out",
    "html": "HTTP 503 with an HTML page, as from a load balancer",
    "slow": "the answer comes `seconds` later",
    "drop": "the connection is closed before anything is carried out",
    "lost": "carried out, then the connection is closed without an answer",
    "expired": "the caller's token counts as expired",
    "error": "an AWS error of the given code, message and status",
    "copy-fails": "CopyDBSnapshot: the copy ends as failed half way",
    "key-disabled": "CopyDBSnapshot: the new key is disabled half way and the copy fails",
    "snapshot-fails": "CreateDBSnapshot: ends as failed",
    "restore-incompatible": "RestoreDBInstanceFromDBSnapshot: ends as incompatible-restore",
}
LATER = {"copy-fails": "CopyDBSnapshot", "key-disabled": "CopyDBSnapshot", "snapshot-fails": "CreateDBSnapshot",
         "restore-incompatible": "RestoreDBInstanceFromDBSnapshot"}


class Faults:
    def __init__(self):
        self._lock = threading.Lock()
        self._list = []

    def add(self, kind, action="*", service="*", times=1, after=0, status=None, seconds=1.0, code=None, message=None):
        """times: how many calls suffer; after: how many are let through first."""
        if kind not in KINDS:
            raise ValueError(f"unknown kind {kind!r}: {', '.join(KINDS)}")
        fault = {"kind": kind, "action": LATER.get(kind, action), "service": service, "times": times, "after": after,
                 "status": status, "seconds": seconds, "code": code, "message": message, "hits": 0}
        with self._lock:
            self._list.append(fault)
        return fault

    def clear(self):
        with self._lock:
            self._list.clear()

    def list(self):
        with self._lock:
            return [dict(f) for f in self._list]

    def hit(self, service, action, later=False):
        """The fault that this call suffers, counted, or None. later: those that act on the work, not on the answer."""
        with self._lock:
            for fault in self._list:
                if (fault["kind"] in LATER) != later or fault["service"] not in ("*", service) \
                        or fault["action"] not in ("*", action) or fault["hits"] >= fault["times"]:
                    continue
                if fault["after"] > 0:
                    fault["after"] -= 1
                    continue
                fault["hits"] += 1
                return dict(fault)
        return None
