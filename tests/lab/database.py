"""The real PostgreSQL server behind an instance, set up as RDS sets its servers up.

rdsadmin is the only superuser and nobody else gets into its database. The master user is none: CREATEDB, CREATEROLE and a
member of rds_superuser. What RDS's patched server lets rds_superuser do and a plain one doesn't:

- replication: on RDS membership in rds_replication is enough, here the role attribute REPLICATION is needed and given;
- CREATE PUBLICATION ... FOR ALL TABLES / TABLES IN SCHEMA: superusers only on a plain server, so refused here;
- CREATE EXTENSION of untrusted extensions: refused here.
"""
import os
import re
import subprocess

from psycopg2 import sql

from lab.pgserver import PgServer

# Parameters that rds_superuser may set in a session on RDS and that a plain server keeps for superusers.
SETTABLE = ["session_replication_role", "log_min_duration_statement", "log_statement", "log_min_messages",
            "log_min_error_statement", "deadlock_timeout", "track_activities", "track_counts", "track_functions",
            "log_lock_waits", "log_temp_files", "temp_file_limit", "lc_messages", "lo_compat_privileges"]

LOG_SETTINGS = {"logging_collector": "on", "log_filename": "postgresql.log.%Y-%m-%d-%H%M", "log_rotation_age": "60min",
                "log_rotation_size": 0, "log_truncate_on_rotation": "off", "log_file_mode": "0644", "log_timezone": "UTC",
                "log_line_prefix": "%t:%r:%u@%d:[%p]:", "log_checkpoints": "on"}


def version(bindir):
    text = subprocess.run([f"{bindir}/postgres", "--version"], capture_output=True, text=True, check=True).stdout
    return re.search(r"\d+\.\d+", text).group()


class Database:
    """One server, on an address of its own, with its log where RDS's log calls find it."""

    def __init__(self, folder, *, bindir, address, port, admin_password):
        self.folder = folder
        self.server = PgServer(os.path.join(folder, "data"), bindir=bindir, host=address, port=port, superuser="rdsadmin",
                               password=admin_password, log=os.path.join(folder, "log", "error", "postgres.log"))

    @property
    def log_folder(self):
        return os.path.join(self.folder, "log", "error")

    def create(self, master, password, dbname, params, certificate):
        """A new server, started, with the master user and the databases that RDS has."""
        self.server.init("scram-sha-256", locale="C.UTF-8")
        self.start(params, certificate)
        new = self.server.one("show server_version_num") >= "150000"
        name = sql.Identifier(master)
        own = [dbname] if dbname and dbname != "postgres" else []
        statements = [f"create role {r} nologin" for r in ("rds_superuser", "rds_replication", "rds_password", "rds_iam")]
        statements.append("grant pg_monitor, pg_signal_backend, rds_replication, rds_password to rds_superuser with admin "
                          "option")
        if new:
            statements += ["grant pg_checkpoint to rds_superuser with admin option",
                           f"grant set on parameter {', '.join(SETTABLE)} to rds_superuser"]
        statements += [
            sql.SQL("create role {} login createdb createrole replication valid until 'infinity' password {}")
            .format(name, sql.Literal(password)),
            sql.SQL("grant rds_superuser to {}").format(name), "create database rdsadmin",
            *[sql.SQL("create database {} owner {}").format(sql.Identifier(d), name) for d in own],
            # on RDS the master owns this too, and with it (15+) the public schema
            sql.SQL("alter database postgres owner to {}").format(name)]
        self._admin(statements)
        if not new:
            for database in ["postgres"] + own:
                self._admin([sql.SQL("alter schema public owner to {}").format(name)], database)

    def start(self, params, certificate, wait=True):
        """Starts on the data folder, recovering when needed, with these parameters (name -> value)."""
        self.server.settings = {**LOG_SETTINGS, "log_directory": self.log_folder, "ssl": "on" if certificate else "off",
                                "fsync": "on", **params}
        os.makedirs(self.log_folder, exist_ok=True)
        for path in (self.folder, os.path.dirname(self.log_folder), self.log_folder):
            os.chmod(path, 0o755)
        self.server._chown(self.log_folder)
        self.write_access(params, certificate)
        self.server.start(wait=wait)

    def write_access(self, params, certificate):
        if certificate:
            for name, data in zip(("server.crt", "server.key"), certificate):
                self.server.put_file(name, data)
        kind = "hostssl" if certificate and params.get("rds.force_ssl") in ("1", "on") else "host"
        self.server.write_hba(["host all rdsadmin 127.0.0.0/8 scram-sha-256",
                               "host rdsadmin all all reject",
                               f"{kind} all all 127.0.0.0/8 scram-sha-256",
                               f"{kind} replication all 127.0.0.0/8 scram-sha-256"])

    def reload(self, params, certificate):
        self.server.settings.update(params)
        self.write_access(params, certificate)
        self.server.reload()

    def restart(self, params, certificate):
        self.server.stop("fast")
        self.start(params, certificate)

    def set_password(self, user, password):
        self._admin([sql.SQL("alter role {} password {}").format(sql.Identifier(user), sql.Literal(password))])

    def remove(self):
        self.server.stop("immediate")
        subprocess.run(["rm", "-rf", self.folder], check=False)

    def logs(self):
        """[(name as RDS says it, path, size, last written in seconds)], oldest name first."""
        found = []
        for name in sorted(os.listdir(self.log_folder)) if os.path.isdir(self.log_folder) else []:
            path = os.path.join(self.log_folder, name)
            stat = os.stat(path)
            found.append((f"error/{name}", path, stat.st_size, stat.st_mtime))
        return found

    def _admin(self, statements, dbname="postgres"):
        con = self.server.connect(dbname)
        try:
            with con.cursor() as cur:
                for text in statements:
                    cur.execute(text)
        finally:
            con.close()
