"""RDS: instances, snapshots and what belongs to them, with states that last a while and real servers behind.

Method names of the parts are the actions of the API; each takes the checked parameters and returns what the model's output
shape holds. What takes time runs in a background thread: state, wait, the real thing, next state.
"""
from lab.rds_base import RdsBase
from lab.rds_groups import RdsGroups
from lab.rds_instances import RdsInstances
from lab.rds_logs import RdsLogs
from lab.rds_modify import RdsModify
from lab.rds_settings import RdsSettings
from lab.rds_snapshots import RdsSnapshots

class Rds(RdsBase, RdsSettings, RdsInstances, RdsModify, RdsSnapshots, RdsGroups, RdsLogs):
    def server_do(self, name, action):
        """What happens to a server without RDS having been asked: crash, stop, pause."""
        server = self._instance(name).db.server
        if action in ("stop", "immediate"):
            server.stop("fast" if action == "stop" else "immediate")
        elif action in ("pause", "resume"):
            server.pause() if action == "pause" else server.resume()
        elif action in ("kill9", "start", "restart"):
            getattr(server, action)()
        else:
            raise ValueError(f"unknown action {action!r}: kill9, immediate, stop, start, restart, pause, resume")
        return {"pid": server.pid, "up": server.is_up()}

    def state(self):
        with self.lock:
            return {
                "instances": {i.id: {"status": i.status, "address": i.address, "host": i.db.server.host,
                                     "port": i.db.server.port,
                                     "endpoint": i.data["Endpoint"]["Address"], "name": self.endpoint_name(i.id),
                                     "admin_dsn": i.db.server.dsn(), "datadir": i.db.server.datadir, "pid": i.db.server.pid,
                                     "up": i.db.server.is_up(),
                                     "kms_key": i.data.get("KmsKeyId"), "logs": i.db.log_folder}
                              for i in self.instances.values()},
                "snapshots": {s.id: {"status": s.data["Status"], "percent": s.data["PercentProgress"], "folder": s.folder,
                                     "kms_key": s.data.get("KmsKeyId")} for s in self.snapshots.values()}}

    def close(self):
        with self.lock:
            instances = list(self.instances.values())
        for instance in instances:
            instance.gone = True
            if instance.db:
                instance.db.server.stop("immediate")
        for claim in self._claims:
            claim.close()
