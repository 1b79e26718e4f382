"""What happens to a stream: kills of all three parties, lost connections, locks, a target that stands still, verifications."""
import time


class Chaos:
    """Events at random moments while the writers write; what is left of them comes when they have ended."""

    EVENTS = [("kill_keybridge", 5), ("stop_keybridge", 1), ("crash_source", 1), ("crash_target", 1), ("drop_walsender", 1), ("drop_lanes", 1),
              ("lock_target", 1), ("freeze_target", 1), ("verify", 1)]

    def __init__(self, run, rng):
        self.of, self.rng = run, rng
        names, weights = zip(*self.EVENTS)
        self.events = rng.choices(names, weights, k=rng.choice([0, 1, 2, 3, 5]))
        for crash in ("crash_source", "crash_target"):      # they take their time
            while self.events.count(crash) > 1:
                self.events.remove(crash)

    def run(self):
        for event in self.events:
            end = time.monotonic() + self.rng.choice([0.02, 0.2, 0.6]) * (0.5 + self.rng.random())
            while time.monotonic() < end and any(w.is_alive() for w in self.of.writers):
                time.sleep(0.01)
            self.of.check_alive()
            self.of.say(event)
            getattr(self, event)()

    def kill_keybridge(self):
        self.of.stop(True)
        self.of.start()

    def stop_keybridge(self):
        self.of.stop(False)
        self.of.start()

    def crash(self, server):
        if self.rng.random() < 0.5:
            server.kill9()
        else:
            server.stop("immediate")
        server.start()

    def crash_source(self):
        self.crash(self.of.servers.source)

    def crash_target(self):
        self.crash(self.of.servers.target)

    def drop_walsender(self):
        self.of.servers.source.sql("select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = %s and active_pid is not null",
                                   (self.of.pair.slot,))

    def drop_lanes(self):
        self.of.servers.target.sql("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s and application_name like 'keybridge%%' "
                                   "and random() < 0.6", (self.of.pair.id,))

    def lock_target(self):
        tables = self.of.pair.target.tables()
        con = self.of.pair.target.connect(autocommit=False)
        with con.cursor() as cur:
            cur.execute("set lock_timeout = '5s'; set idle_in_transaction_session_timeout = 0")
            cur.execute(f"lock table only {self.rng.choice(tables)} in exclusive mode")
            time.sleep(self.rng.choice([0.05, 0.3, 1]))
        con.close()

    def freeze_target(self):
        self.of.servers.target.pause()
        time.sleep(self.rng.choice([0.1, 0.5]))
        self.of.servers.target.resume()

    def verify(self):
        self.of.verify(writing=True)
