/* The borrowed servers, what is made on them, and the two contenders. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/base/log.h"
#include "engine/base/mono.h"
#include "engine/cmd/bench_impl.h"
#include "engine/move/dsn.h"

extern char **environ;

#define COPY_NAME BENCH_NAME "_copy"
#define FREE_MS   30000

/* --- CPU time ----------------------------------------------------------------------------------
 */

typedef struct ProcStat {
    int parent;
    double own, children; /* seconds; children: those that were waited for */
} ProcStat;

static bool read_stat(int pid, ProcStat *stat)
{
    char path[64], text[1024];
    unsigned long utime, stime;
    long cutime, cstime;
    double tick = (double)sysconf(_SC_CLK_TCK);
    FILE *file;
    size_t got;
    const char *at;

    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    file = fopen(path, "re");
    if (!file)
        return false;
    got = fread(text, 1, sizeof(text) - 1, file);
    fclose(file);
    text[got] = 0;
    at = strrchr(text, ')');
    if (!at || sscanf(at + 1, " %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %ld %ld",
                      &stat->parent, &utime, &stime, &cutime, &cstime) != 5)
        return false;
    stat->own = (double)(utime + stime) / tick;
    stat->children = (double)(cutime + cstime) / tick;
    return true;
}

/* Of all processes of a server: those that live, and through the postmaster those that have ended.
 */
static double server_cpu(int postmaster)
{
    DIR *dir = postmaster ? opendir("/proc") : NULL;
    ProcStat stat;
    double sum;

    if (!dir || !read_stat(postmaster, &stat)) {
        if (dir)
            closedir(dir);
        return -1;
    }
    sum = stat.own + stat.children;
    for (struct dirent *e; (e = readdir(dir));) {
        int pid = (int)strtol(e->d_name, NULL, 10);

        if (pid > 0 && read_stat(pid, &stat) && stat.parent == postmaster)
            sum += stat.own;
    }
    closedir(dir);
    return sum;
}

/* 0: the server isn't on this host, or not to be seen from here. */
static int postmaster_of(const Pg *pg)
{
    const char *host = PQhostaddr(pg->conn);
    bool here = !*host || strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0;
    ProcStat stat;

    return here && read_stat(PQbackendPID(pg->conn), &stat) ? stat.parent : 0;
}

void meter_start(Stage *stage, Figures *at)
{
    *at = (Figures){.source_cpu = server_cpu(stage->source_pid),
                    .target_cpu = server_cpu(stage->target_pid),
                    .seconds = (double)mono_us() / 1e6};
}

void meter_stop(Stage *stage, Figures *at)
{
    double source = server_cpu(stage->source_pid), target = server_cpu(stage->target_pid);

    at->seconds = (double)mono_us() / 1e6 - at->seconds;
    at->source_cpu = at->source_cpu < 0 || source < 0 ? -1 : source - at->source_cpu;
    at->target_cpu = at->target_cpu < 0 || target < 0 ? -1 : target - at->target_cpu;
}

/* --- databases and slots ------------------------------------------------------------------------
 */

static bool nothing_is_there(Pg *pg, Err *err)
{
    AUTO_RESULT res = pg_rows(pg, err,
                              "select 'database ' || datname from pg_catalog.pg_database"
                              " where datname like 'keybridge\\_bench%'"
                              " union all select 'slot ' || slot_name from"
                              " pg_catalog.pg_replication_slots"
                              " where slot_name like 'keybridge\\_bench%' limit 1");

    if (!res)
        return false;
    if (PQntuples(res) == 0)
        return true;
    err_fail(err, ERR_STATE, "%s is there already", PQgetvalue(res, 0, 0));
    return err_hint(err, "another bench runs, or one was killed: drop what has this name first");
}

static bool is_recent(const Pg *pg, const char *side, Err *err)
{
    if (pg->version >= 140000)
        return true;
    return err_fail(err, ERR_USAGE,
                    "the %s is PostgreSQL %d; a subscription with binary and "
                    "streaming, to compare with, needs 14",
                    side, pg->version / 10000);
}

bool stage_open(Stage *stage, const Conf *conf, const Stop *stop, Err *err)
{
    PgOptions options = {.application = "keybridge bench", .stop = stop};

    *stage = (Stage){.conf = conf, .stop = stop};
    arena_init(&stage->arena, 4096);
    snprintf(stage->folder, sizeof(stage->folder), "/tmp/keybridge-bench.XXXXXX");
    if (!pg_open(&stage->source, conf->source, ERR_SOURCE, &options, err) ||
        !pg_open(&stage->target, conf->target, ERR_TARGET, &options, err) ||
        !is_recent(&stage->source, "source", err) || !is_recent(&stage->target, "target", err) ||
        !nothing_is_there(&stage->source, err) || !nothing_is_there(&stage->target, err))
        return false;
    stage->source_dsn = dsn_with_database(&stage->arena, conf->source, BENCH_NAME, err);
    stage->target_dsn = dsn_with_database(&stage->arena, conf->target, BENCH_NAME, err);
    stage->copy_dsn = dsn_with_database(&stage->arena, conf->target, COPY_NAME, err);
    if (!stage->source_dsn || !stage->target_dsn || !stage->copy_dsn)
        return false;
    if (!mkdtemp(stage->folder))
        return err_errno(err, ERR_SYSTEM, "making %s", stage->folder);
    stage->source_pid = postmaster_of(&stage->source);
    stage->target_pid = postmaster_of(&stage->target);
    stage->ours = true;
    return true;
}

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

void stage_close(Stage *stage)
{
    Err ignored = ERR_INIT;

    if (stage->ours) {
        if (!stage_drop(stage, &ignored))
            log_err(LOG_LEVEL_WARN, "something of keybridge_bench is left", &ignored);
        (void)nftw(stage->folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    }
    pg_close(&stage->source);
    pg_close(&stage->target);
    arena_fini(&stage->arena);
}

static bool set_up(const Stage *stage, const char *dsn, ErrKind side, const char *setup, Err *err)
{
    PgOptions options = {.application = "keybridge bench", .stop = stage->stop};
    AUTO_PG pg = {0};

    return pg_open(&pg, dsn, side, &options, err) &&
           pg_exec(&pg, "set search_path = public", err) && pg_exec(&pg, setup, err) &&
           pg_exec(&pg, "create table bench_end (id int primary key)", err) &&
           pg_exec(&pg, "vacuum analyze", err) &&
           (side == ERR_TARGET ||
            pg_exec(&pg, "create publication " BENCH_NAME " for all tables", err));
}

bool stage_make(Stage *stage, const char *setup, Err *err)
{
    return pg_exec(&stage->source, "create database " BENCH_NAME, err) &&
           pg_exec(&stage->target, "create database " BENCH_NAME, err) &&
           set_up(stage, stage->source_dsn, ERR_SOURCE, setup, err) &&
           set_up(stage, stage->target_dsn, ERR_TARGET, setup, err);
}

/* The subscription goes first: as long as it is there its database can't be dropped, and it has the
 * slot. It was detached from the slot when it was made or is now. */
static bool drop_subscription(Stage *stage, Err *err)
{
    PgOptions options = {.application = "keybridge bench", .stop = NULL};
    AUTO_PG pg = {0};
    AUTO_RESULT res =
        pg_rows(&stage->target, err,
                "select 1 from pg_catalog.pg_subscription s"
                " join pg_catalog.pg_database d on d.oid = s.subdbid"
                " where s.subname = '" BENCH_NAME "' and d.datname = '" COPY_NAME "'");

    if (!res || PQntuples(res) == 0)
        return res != NULL;
    return pg_open(&pg, stage->copy_dsn, ERR_TARGET, &options, err) &&
           pg_exec(&pg, "alter subscription " BENCH_NAME " disable", err) &&
           pg_exec(&pg, "alter subscription " BENCH_NAME " set (slot_name = none)", err) &&
           pg_exec(&pg, "drop subscription " BENCH_NAME, err);
}

bool stage_drop_slot(Stage *stage, const char *slot, Err *err)
{
    uint64_t deadline = mono_ms() + FREE_MS;

    for (;;) {
        AUTO_RESULT active = pg_rows(
            &stage->source, err,
            "select active from pg_catalog.pg_replication_slots where slot_name = $1", slot);

        if (!active)
            return false;
        if (PQntuples(active) == 0)
            return true;
        if (*PQgetvalue(active, 0, 0) == 'f')
            break;
        if (mono_ms() > deadline)
            return err_fail(err, ERR_SOURCE, "slot %s is still used after %d s", slot,
                            FREE_MS / 1000);
        (void)usleep(10000);
    }
    AUTO_RESULT res =
        pg_rows(&stage->source, err, "select pg_catalog.pg_drop_replication_slot($1)", slot);

    return res != NULL;
}

bool stage_drop(Stage *stage, Err *err)
{
    bool ok = drop_subscription(stage, err);
    char slot[64];

    for (unsigned i = 0; i < stage->slots; i++) {
        snprintf(slot, sizeof(slot), BENCH_NAME "_%u", i);
        ok &= stage_drop_slot(stage, slot, err);
    }
    stage->slots = 0;
    ok &= pg_exec(&stage->target, "drop database if exists " COPY_NAME " with (force)", err);
    ok &= pg_exec(&stage->target, "drop database if exists " BENCH_NAME " with (force)", err);
    ok &= pg_exec(&stage->source, "drop database if exists " BENCH_NAME " with (force)", err);
    return ok;
}

bool stage_fresh_copy(Stage *stage, Err *err)
{
    return pg_exec(&stage->target, "drop database if exists " COPY_NAME " with (force)", err) &&
           pg_exec(&stage->target, "create database " COPY_NAME " template " BENCH_NAME, err) &&
           pg_exec(&stage->target, "checkpoint", err);
}

bool stage_slot(Stage *stage, char slot[64], Err *err)
{
    PgOptions options = {.application = "keybridge bench", .stop = stage->stop};
    AUTO_PG pg = {0};

    snprintf(slot, 64, BENCH_NAME "_%u", stage->slots);
    if (!pg_open(&pg, stage->source_dsn, ERR_SOURCE, &options, err))
        return false;
    AUTO_RESULT res = pg_rows(
        &pg, err, "select pg_catalog.pg_create_logical_replication_slot($1, 'pgoutput')", slot);

    stage->slots += res != NULL;
    return res != NULL;
}

/* --- comparing ----------------------------------------------------------------------------------
 */

static bool hash_table(Pg *pg, const char *table, Buf *out, Err *err)
{
    AUTO_BUF sql;

    buf_init(&sql, 4096);
    buf_puts(&sql, "select count(*) || ' ' || coalesce(sum(hashtextextended(t::text, 0)::numeric),"
                   " 0) from public.");
    pg_put_name(&sql, table);
    buf_puts(&sql, " t");
    return buf_ok(&sql, "a query", err) && pg_value(pg, out, err, buf_str(&sql), 0, NULL);
}

bool stage_compare(Stage *stage, Err *err)
{
    PgOptions options = {.application = "keybridge bench", .stop = stage->stop};
    AUTO_PG source = {0}, copy = {0};

    if (!pg_open(&source, stage->source_dsn, ERR_SOURCE, &options, err) ||
        !pg_open(&copy, stage->copy_dsn, ERR_TARGET, &options, err))
        return false;
    AUTO_RESULT tables = pg_rows(&source, err,
                                 "select relname from pg_catalog.pg_class where relkind = 'r'"
                                 " and relnamespace = 'public'::regnamespace");

    for (int i = 0; tables && i < PQntuples(tables); i++) {
        const char *table = PQgetvalue(tables, i, 0);
        AUTO_BUF here;
        AUTO_BUF there;

        buf_init(&here, 256);
        buf_init(&there, 256);
        if (!hash_table(&source, table, &here, err) || !hash_table(&copy, table, &there, err))
            return false;
        if (!span_equal(buf_span(&here), buf_span(&there)))
            return err_fail(err, ERR_DIFFERENT, "table %s differs after a drain: %s there, %s here",
                            table, buf_str(&here), buf_str(&there));
    }
    return tables != NULL;
}

/* --- the contenders -----------------------------------------------------------------------------
 */

bool native_make(Native *native, Stage *stage, const char *slot, Err *err)
{
    PgOptions options = {.application = "keybridge bench", .stop = stage->stop};
    Buf sql ON_EXIT(buf_wipe);

    *native = (Native){0};
    buf_init(&sql, KIB(16));
    buf_puts(&sql, "create subscription " BENCH_NAME " connection ");
    pg_put_literal(&sql, span_str(stage->source_dsn));
    buf_printf(&sql,
               " publication " BENCH_NAME " with (create_slot = false, slot_name = '%s', copy_data"
               " = false, binary = true, streaming = on, enabled = false)",
               slot);
    return buf_ok(&sql, "a subscription", err) &&
           pg_open(&native->pg, stage->copy_dsn, ERR_TARGET, &options, err) &&
           pg_exec(&native->pg, buf_str(&sql), err);
}

bool native_start(Native *native, Err *err)
{
    return pg_exec(&native->pg, "alter subscription " BENCH_NAME " enable", err);
}

bool native_end(Native *native, Err *err)
{
    bool ok =
        pg_exec(&native->pg, "alter subscription " BENCH_NAME " disable", err) &&
        pg_exec(&native->pg, "alter subscription " BENCH_NAME " set (slot_name = none)", err) &&
        pg_exec(&native->pg, "drop subscription " BENCH_NAME, err);

    pg_close(&native->pg);
    return ok;
}

/* The environment with the connection strings of the databases that were made: there they are in no
 * process title. */
static char **child_env(Stage *stage)
{
    size_t count = 0, n = 0;
    char **env;

    while (environ[count])
        count++;
    env = arena_alloc(&stage->arena, (count + 3) * sizeof(*env));
    for (size_t i = 0; i < count; i++)
        if (strncmp(environ[i], "KEYBRIDGE_", 10) != 0)
            env[n++] = environ[i];
    env[n++] = arena_printf(&stage->arena, "KEYBRIDGE_SOURCE=%s", stage->source_dsn);
    env[n++] = arena_printf(&stage->arena, "KEYBRIDGE_TARGET=%s", stage->copy_dsn);
    env[n] = NULL;
    return env;
}

static void child_args(Stage *stage, const char *slot, const char *until, char *argv[16])
{
    Arena *a = &stage->arena;
    unsigned n = 0;

    argv[n++] = arena_printf(a, "keybridge");
    argv[n++] = arena_printf(a, "replicate");
    argv[n++] = arena_printf(a, "--slot=%s", slot);
    argv[n++] = arena_printf(a, "--publication=%s", BENCH_NAME);
    argv[n++] = arena_printf(a, "--state-dir=%s/state", stage->folder);
    argv[n++] = arena_printf(a, "--lanes=%" PRIu64, (uint64_t)stage->conf->lanes);
    argv[n++] = arena_printf(a, "--log-level=warn");
    if (until)
        argv[n++] = arena_printf(a, "--until-lsn=%s", until);
    if (stage->conf->tls_ca)
        argv[n++] = arena_printf(a, "--tls-ca=%s", stage->conf->tls_ca);
    if (stage->conf->tls_insecure)
        argv[n++] = arena_printf(a, "--tls-insecure");
    argv[n] = NULL;
}

bool child_start(Child *child, Stage *stage, const char *slot, const char *until, Err *err)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    char *argv[16];
    sigset_t none;
    int failed;

    child_args(stage, slot, until, argv);
    sigemptyset(&none);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", 0, 0);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 2,
                                     arena_printf(&stage->arena, "%s/log", stage->folder),
                                     O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setsigmask(&attr, &none); /* ours are blocked */
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
    failed = posix_spawn(&child->pid, "/proc/self/exe", &actions, &attr, argv, child_env(stage));
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&actions);
    if (failed)
        return err_fail(err, ERR_SYSTEM, "starting keybridge replicate: %s",
                        strerrordesc_np(failed));
    child->fd = pidfd_open(child->pid, 0);
    if (child->fd < 0) {
        err_errno(err, ERR_SYSTEM, "watching keybridge replicate");
        child_end(child);
        (void)waitpid(child->pid, NULL, 0);
        return false;
    }
    return true;
}

void child_end(Child *child)
{
    kill(child->pid, SIGTERM);
}

static void tell_log(const Stage *stage)
{
    char path[80], line[1024];
    FILE *log;

    snprintf(path, sizeof(path), "%s/log", stage->folder);
    log = fopen(path, "re");
    while (log && fgets(line, sizeof(line), log))
        fputs(line, stderr);
    if (log)
        fclose(log);
}

bool child_wait(Child *child, Stage *stage, bool asked, Figures *used, Err *err)
{
    bool stopped = stop_poll(stage->stop, child->fd, POLLIN, -1) < 0;
    struct rusage usage = {0};
    int status = 0;

    if (stopped)
        child_end(child);
    while (wait4(child->pid, &status, 0, &usage) < 0 && errno == EINTR)
        ;
    close(child->fd);
    used->own_cpu = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                    (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    used->rss_mib = (double)usage.ru_maxrss / 1024;
    if (stopped)
        return stop_fail(err, "measuring");
    if (asked || (WIFEXITED(status) && WEXITSTATUS(status) == 0))
        return true;
    tell_log(stage);
    return err_fail(err, ERR_TARGET, "keybridge replicate ended with %d: see its messages above",
                    WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}
