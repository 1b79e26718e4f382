#include "engine/move/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/mono.h"

enum {
    PUT,
    GET,
    FORGET,
    FACTS,
    BEGIN_PHASE,
    END_PHASE,
    PHASE_DONE,
    PHASES,
    INTEND,
    OUTCOME,
    OPEN_CALLS,
    STATEMENTS
};

static const char *const sql[STATEMENTS] = {
    [PUT] = "insert into fact (scope, key, value) values (?1, ?2, ?3)"
            " on conflict (scope, key) do update set value = excluded.value",
    [GET] = "select value from fact where scope = ?1 and key = ?2",
    [FORGET] = "delete from fact where scope = ?1 and key = ?2",
    [FACTS] = "select scope, key, value from fact order by scope, key",
    [BEGIN_PHASE] = "insert into phase (name, state, started_us, ended_us, attempts, error)"
                    " values (?1, 'running', ?2, 0, 1, '')"
                    " on conflict (name) do update set state = 'running', ended_us = 0, error = '',"
                    " attempts = attempts + 1",
    [END_PHASE] = "update phase set state = ?2, ended_us = ?3, error = ?4 where name = ?1",
    [PHASE_DONE] = "select 1 from phase where name = ?1 and state = 'done'",
    [PHASES] =
        "select name, state, started_us, ended_us, attempts, error from phase order by rowid",
    [INTEND] = "insert into call (phase, what, intended_us) values (?1, ?2, ?3)",
    [OUTCOME] = "update call set outcome = ?2, ended_us = ?3 where id = ?1",
    [OPEN_CALLS] = "select phase || ': ' || what from call where outcome is null order by id",
};

static const char schema[] =
    "create table if not exists fact (scope text not null, key text not null, value text not null,"
    " primary key (scope, key));"
    "create table if not exists phase (name text unique not null, state text not null, started_us integer not null,"
    " ended_us integer not null, attempts integer not null, error text not null);"
    "create table if not exists call (id integer primary key, phase text not null, what text not null,"
    " intended_us integer not null, ended_us integer, outcome text);";

struct Journal {
    sqlite3 *db;
    sqlite3_stmt *stmt[STATEMENTS];
    int lock_fd;
    char dir[4096];
};

static bool fail(Journal *journal, Err *err, const char *doing)
{
    int code = sqlite3_extended_errcode(journal->db);

    err_fail(err,
             (code & 0xff) == SQLITE_FULL || (code & 0xff) == SQLITE_IOERR ? ERR_SYSTEM : ERR_STATE,
             "%s in %s/journal.db: %s", doing, journal->dir, sqlite3_errmsg(journal->db));
    return err_hint(err, "check the disk and the permissions of the state directory");
}

/* One process at a time; the kernel gives the lock back when that one dies, however it dies. */
static bool lock_dir(Journal *journal, Err *err)
{
    char path[4200];
    char pid[32] = "";
    ssize_t got;
    int len;

    snprintf(path, sizeof(path), "%s/lock", journal->dir);
    journal->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (journal->lock_fd < 0)
        return err_errno(err, ERR_SYSTEM, "opening %s", path);
    if (flock(journal->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        got = pread(journal->lock_fd, pid, sizeof(pid) - 1, 0);
        pid[got > 0 ? got : 0] = '\0';
        err_fail(err, ERR_STATE, "state directory %s: process %s drives this migration already",
                 journal->dir, *pid ? pid : "(unknown)");
        return err_hint(err,
                        "wait for it, stop it, or use another --state-dir for another migration");
    }
    len = snprintf(pid, sizeof(pid), "%ld", (long)getpid());
    if (ftruncate(journal->lock_fd, 0) != 0 || pwrite(journal->lock_fd, pid, (size_t)len, 0) != len)
        return err_errno(err, ERR_SYSTEM, "writing %s", path);
    return true;
}

static bool make_dir(const char *dir, Err *err)
{
    struct stat st;

    if (mkdir(dir, 0700) == 0)
        return true;
    if (errno != EEXIST) {
        err_errno(err, ERR_SYSTEM, "making the state directory %s", dir);
        return err_hint(err, "choose a writable place with --state-dir");
    }
    if (stat(dir, &st) != 0 || !S_ISDIR(st.st_mode))
        return err_fail(err, ERR_STATE, "state directory %s: it is not a directory", dir);
    if (st.st_mode & 077 && chmod(dir, 0700) != 0)
        return err_errno(err, ERR_SYSTEM, "closing the state directory %s to others", dir);
    return true;
}

static bool prepare(Journal *journal, Err *err)
{
    for (int i = 0; i < STATEMENTS; i++)
        if (sqlite3_prepare_v3(journal->db, sql[i], -1, SQLITE_PREPARE_PERSISTENT,
                               &journal->stmt[i], NULL) != SQLITE_OK)
            return fail(journal, err, "reading the journal");
    return true;
}

static bool open_db(Journal *journal, int flags, Err *err)
{
    char path[4200];
    mode_t mask = umask(077); /* SQLite gives its -wal and -shm files the mode of the journal */
    int code;

    snprintf(path, sizeof(path), "%s/journal.db", journal->dir);
    code = sqlite3_open_v2(path, &journal->db, flags | SQLITE_OPEN_NOMUTEX, NULL);
    umask(mask);
    if (code != SQLITE_OK) {
        fail(journal, err, "opening the journal");
        return code == SQLITE_CANTOPEN
                   ? err_hint(err, "is --state-dir the directory of a migration?")
                   : false;
    }
    sqlite3_busy_timeout(journal->db, 5000);
    return true;
}

static Journal *journal_new(const char *dir)
{
    Journal *journal = calloc(1, sizeof(*journal));

    if (!journal)
        abort();
    journal->lock_fd = -1;
    snprintf(journal->dir, sizeof(journal->dir), "%s", dir);
    return journal;
}

static bool open_for_writing(Journal *journal, Err *err)
{
    if (!make_dir(journal->dir, err) || !lock_dir(journal, err) ||
        !open_db(journal, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, err))
        return false;
    if (sqlite3_exec(journal->db, "pragma journal_mode=wal; pragma synchronous=full;", NULL, NULL,
                     NULL) != SQLITE_OK ||
        sqlite3_exec(journal->db, schema, NULL, NULL, NULL) != SQLITE_OK)
        return fail(journal, err, "setting up the journal");
    return prepare(journal, err);
}

Journal *journal_open(const char *dir, Err *err)
{
    Journal *journal = journal_new(dir);

    if (open_for_writing(journal, err))
        return journal;
    journal_close(journal);
    return NULL;
}

Journal *journal_open_readonly(const char *dir, Err *err)
{
    Journal *journal = journal_new(dir);

    if (open_db(journal, SQLITE_OPEN_READONLY, err) && prepare(journal, err))
        return journal;
    journal_close(journal);
    return NULL;
}

void journal_close(Journal *journal)
{
    if (!journal)
        return;
    for (int i = 0; i < STATEMENTS; i++)
        sqlite3_finalize(journal->stmt[i]);
    sqlite3_close(journal->db);
    if (journal->lock_fd >= 0)
        close(journal->lock_fd);
    free(journal);
}

const char *journal_dir(const Journal *journal)
{
    return journal->dir;
}

static void bind_text(sqlite3_stmt *stmt, int at, const char *text)
{
    sqlite3_bind_text(stmt, at, text ? text : "", -1, SQLITE_STATIC);
}

/* Steps a statement that gives no rows. */
static bool step(Journal *journal, int which, Err *err, const char *doing)
{
    sqlite3_stmt *stmt = journal->stmt[which];
    bool done = sqlite3_step(stmt) == SQLITE_DONE;

    if (!done)
        fail(journal, err, doing);
    sqlite3_reset(stmt);
    sqlite3_clear_bindings(stmt);
    return done;
}

static const char *column(Arena *arena, sqlite3_stmt *stmt, int at)
{
    const unsigned char *text = sqlite3_column_text(stmt, at);

    return text ? arena_str_of(arena, span_of(text, (size_t)sqlite3_column_bytes(stmt, at))) : "";
}

bool journal_put(Journal *journal, const char *scope, const char *key, const char *value, Err *err)
{
    sqlite3_stmt *stmt = journal->stmt[PUT];

    bind_text(stmt, 1, scope);
    bind_text(stmt, 2, key);
    bind_text(stmt, 3, value);
    return step(journal, PUT, err, "writing a fact");
}

bool journal_get(Journal *journal, const char *scope, const char *key, Arena *arena,
                 const char **value, Err *err)
{
    sqlite3_stmt *stmt = journal->stmt[GET];
    int got;

    bind_text(stmt, 1, scope);
    bind_text(stmt, 2, key);
    got = sqlite3_step(stmt);
    *value = got == SQLITE_ROW ? column(arena, stmt, 0) : NULL;
    if (got != SQLITE_ROW && got != SQLITE_DONE)
        fail(journal, err, "reading a fact");
    sqlite3_reset(stmt);
    return got == SQLITE_ROW || got == SQLITE_DONE;
}

bool journal_forget(Journal *journal, const char *scope, const char *key, Err *err)
{
    sqlite3_stmt *stmt = journal->stmt[FORGET];

    bind_text(stmt, 1, scope);
    bind_text(stmt, 2, key);
    return step(journal, FORGET, err, "removing a fact");
}

bool journal_reset(Journal *journal, Err *err)
{
    return sqlite3_exec(journal->db,
                        "begin; delete from fact; delete from phase; delete from call; commit;",
                        NULL, NULL, NULL) == SQLITE_OK ||
           fail(journal, err, "resetting the journal");
}

/* Calls row() for each row of a statement without parameters, with the index of the row. */
typedef void RowFn(void *self, Arena *arena, sqlite3_stmt *stmt, size_t at);

static bool each_row(Journal *journal, int which, Arena *arena, size_t width, void **rows,
                     size_t *count, RowFn *row, Err *err)
{
    sqlite3_stmt *stmt = journal->stmt[which];
    size_t room = 0;
    int got;

    *rows = NULL;
    *count = 0;
    while ((got = sqlite3_step(stmt)) == SQLITE_ROW) {
        if (*count == room) {
            void *more = arena_zalloc(arena, (room ? room * 2 : 16) * width);

            if (room)
                memcpy(more, *rows, room * width);
            *rows = more;
            room = room ? room * 2 : 16;
        }
        row(*rows, arena, stmt, (*count)++);
    }
    if (got != SQLITE_DONE)
        fail(journal, err, "reading the journal");
    sqlite3_reset(stmt);
    return got == SQLITE_DONE;
}

static void fact_row(void *self, Arena *arena, sqlite3_stmt *stmt, size_t at)
{
    ((JournalFact *)self)[at] =
        (JournalFact){column(arena, stmt, 0), column(arena, stmt, 1), column(arena, stmt, 2)};
}

bool journal_facts(Journal *journal, Arena *arena, JournalFact **facts, size_t *count, Err *err)
{
    void *rows;
    bool ok = each_row(journal, FACTS, arena, sizeof(JournalFact), &rows, count, fact_row, err);

    *facts = rows;
    return ok;
}

bool journal_phase_begin(Journal *journal, const char *name, Err *err)
{
    sqlite3_stmt *stmt = journal->stmt[BEGIN_PHASE];

    bind_text(stmt, 1, name);
    sqlite3_bind_int64(stmt, 2, (int64_t)wall_us());
    return step(journal, BEGIN_PHASE, err, "beginning a phase");
}

bool journal_phase_end(Journal *journal, const char *name, const char *state, const char *error,
                       Err *err)
{
    sqlite3_stmt *stmt = journal->stmt[END_PHASE];

    bind_text(stmt, 1, name);
    bind_text(stmt, 2, state);
    sqlite3_bind_int64(stmt, 3, (int64_t)wall_us());
    bind_text(stmt, 4, error);
    return step(journal, END_PHASE, err, "ending a phase");
}

bool journal_phase_is_done(Journal *journal, const char *name, bool *done, Err *err)
{
    sqlite3_stmt *stmt = journal->stmt[PHASE_DONE];
    int got;

    bind_text(stmt, 1, name);
    got = sqlite3_step(stmt);
    *done = got == SQLITE_ROW;
    if (got != SQLITE_ROW && got != SQLITE_DONE)
        fail(journal, err, "reading a phase");
    sqlite3_reset(stmt);
    return got == SQLITE_ROW || got == SQLITE_DONE;
}

static void phase_row(void *self, Arena *arena, sqlite3_stmt *stmt, size_t at)
{
    ((JournalPhase *)self)[at] = (JournalPhase){
        .name = column(arena, stmt, 0),
        .state = column(arena, stmt, 1),
        .started_us = (uint64_t)sqlite3_column_int64(stmt, 2),
        .ended_us = (uint64_t)sqlite3_column_int64(stmt, 3),
        .attempts = (unsigned)sqlite3_column_int(stmt, 4),
        .error = column(arena, stmt, 5),
    };
}

bool journal_phases(Journal *journal, Arena *arena, JournalPhase **phases, size_t *count, Err *err)
{
    void *rows;
    bool ok = each_row(journal, PHASES, arena, sizeof(JournalPhase), &rows, count, phase_row, err);

    *phases = rows;
    return ok;
}

bool journal_intend(Journal *journal, const char *phase, const char *what, int64_t *call, Err *err)
{
    sqlite3_stmt *stmt = journal->stmt[INTEND];

    bind_text(stmt, 1, phase);
    bind_text(stmt, 2, what);
    sqlite3_bind_int64(stmt, 3, (int64_t)wall_us());
    if (!step(journal, INTEND, err, "writing an intent"))
        return false;
    *call = sqlite3_last_insert_rowid(journal->db);
    return true;
}

bool journal_outcome(Journal *journal, int64_t call, const char *outcome, Err *err)
{
    sqlite3_stmt *stmt = journal->stmt[OUTCOME];

    sqlite3_bind_int64(stmt, 1, call);
    bind_text(stmt, 2, outcome);
    sqlite3_bind_int64(stmt, 3, (int64_t)wall_us());
    return step(journal, OUTCOME, err, "writing an outcome");
}

static void call_row(void *self, Arena *arena, sqlite3_stmt *stmt, size_t at)
{
    ((const char **)self)[at] = column(arena, stmt, 0);
}

bool journal_open_calls(Journal *journal, Arena *arena, const char ***what, size_t *count, Err *err)
{
    void *rows;
    bool ok = each_row(journal, OPEN_CALLS, arena, sizeof(char *), &rows, count, call_row, err);

    *what = rows;
    return ok;
}
