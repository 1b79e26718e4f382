/* journal.h - what a migration has done so far, kept so that it survives kill -9.
 *
 * A SQLite file in the state directory (WAL, synchronous=FULL: what was said to be written is on
 * disk). It holds phases, facts (AWS identifiers, positions, settings to put back) by scope, which
 * is a database's name or "" for the whole instance, and calls: the intent is written before
 * something outside is changed, the outcome after, so that a rerun knows what may have happened. No
 * secrets are ever put here.
 *
 * journal_open takes the directory's lock: one process drives a migration. A Journal belongs to one
 * thread. Errors are ERR_STATE (another process, a damaged file) or ERR_SYSTEM (the disk).
 */
#ifndef JOURNAL_H
#define JOURNAL_H

#include "engine/base/arena.h"
#include "engine/base/err.h"

typedef struct Journal Journal;

/* Makes the directory (0700) when it is missing. */
MUST_USE Journal *journal_open(const char *dir, Err *err);
/* To look at it while another process drives; no directory or no journal is ERR_STATE. Writing
 * fails. */
MUST_USE Journal *journal_open_readonly(const char *dir, Err *err);
void journal_close(Journal *journal); /* NULL is fine */
const char *journal_dir(const Journal *journal);

/* Facts. A value that is there is replaced. */
MUST_USE bool journal_put(Journal *journal, const char *scope, const char *key, const char *value,
                          Err *err);
/* *value is in the arena, NULL when it isn't there. */
MUST_USE bool journal_get(Journal *journal, const char *scope, const char *key, Arena *arena,
                          const char **value, Err *err);
MUST_USE bool journal_forget(Journal *journal, const char *scope, const char *key, Err *err);

typedef struct JournalFact {
    const char *scope;
    const char *key;
    const char *value;
} JournalFact;
/* All facts, ordered by scope and key. */
MUST_USE bool journal_facts(Journal *journal, Arena *arena, JournalFact **facts, size_t *count,
                            Err *err);

/* After a clean-up: nothing was done any more. What was done stays in the audit log. */
MUST_USE bool journal_reset(Journal *journal, Err *err);

/* Phases. */
typedef struct JournalPhase {
    const char *name;
    const char *state;   /* "running" (also after a kill), "done", "failed", "undone" */
    uint64_t started_us; /* wall clock of the first attempt */
    uint64_t ended_us;   /* 0 while running */
    unsigned attempts;
    const char *error; /* of the last attempt, "" */
} JournalPhase;
MUST_USE bool journal_phase_begin(Journal *journal, const char *name, Err *err);
MUST_USE bool journal_phase_end(Journal *journal, const char *name, const char *state,
                                const char *error, Err *err);
MUST_USE bool journal_phase_is_done(Journal *journal, const char *name, bool *done, Err *err);
/* In the order of their first attempt. */
MUST_USE bool journal_phases(Journal *journal, Arena *arena, JournalPhase **phases, size_t *count,
                             Err *err);

/* Calls to the outside: *call identifies it for its outcome. */
MUST_USE bool journal_intend(Journal *journal, const char *phase, const char *what, int64_t *call,
                             Err *err);
MUST_USE bool journal_outcome(Journal *journal, int64_t call, const char *outcome, Err *err);
/* Intents without an outcome, oldest first: what a killed run may have done. */
MUST_USE bool journal_open_calls(Journal *journal, Arena *arena, const char ***what, size_t *count,
                                 Err *err);

#endif
