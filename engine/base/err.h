/* err.h - why something failed: filled once where the facts are known, enriched on the way up,
 * reported once at the top.
 *
 * An Err belongs to the caller, one thread at a time; start it with ERR_INIT. House form of texts:
 * lower case, no full stop, what was being done, to what, what came back; what to do goes into the
 * hint. Secrets never go in.
 */
#ifndef ERR_H
#define ERR_H

#include "engine/base/base.h"

typedef enum ErrKind {
    ERR_NONE,
    ERR_USAGE,     /* the command line */
    ERR_CONFIG,    /* the ini file, the environment, a value in them */
    ERR_DIFFERENT, /* the check worked and found differences */
    ERR_TIMEOUT,   /* not in time; what had been done was undone */
    ERR_SOURCE,    /* the source refused or failed */
    ERR_TARGET,    /* the target refused or failed */
    ERR_AWS,       /* AWS refused or failed */
    ERR_PROTOCOL,  /* bytes from a peer that can't be right */
    ERR_FAITHFUL,  /* the stream can't be replicated faithfully: an operator must decide */
    ERR_STATE,     /* the migration's own state: journal, progress, another run */
    ERR_SYSTEM,    /* this machine: disk, memory, threads */
    ERR_STOPPED,   /* asked to stop */
    ERR_BUG,       /* a claim of ours that didn't hold */
    ERR_KINDS
} ErrKind;

typedef struct Err {
    ErrKind kind;
    bool transient;   /* the same call may succeed later: the supervisor's only question */
    char code[48];    /* the peer's own code: SQLSTATE, errno name, AWS error code */
    const char *file; /* where it was filled, for debug logs */
    int line;
    char text[1024];
    char hint[512]; /* what an operator can do about it; may be empty */
} Err;

#define ERR_INIT ((Err){.kind = ERR_NONE})

/* Fill; both return false so that `return err_fail(...)` reads as it should. */
#define err_fail(err, kind, ...) err_fail_at((err), (kind), __FILE__, __LINE__, __VA_ARGS__)
bool err_fail_at(Err *err, ErrKind kind, const char *file, int line, const char *fmt, ...)
    PRINTF_LIKE(5, 6);
/* As err_fail, with ": " and the text of errno (read first), and its name as code. */
#define err_errno(err, kind, ...) err_errno_at((err), (kind), __FILE__, __LINE__, __VA_ARGS__)
bool err_errno_at(Err *err, ErrKind kind, const char *file, int line, const char *fmt, ...)
    PRINTF_LIKE(5, 6);

/* Enrich; each returns false. Context goes in front: "fmt: " + text. */
bool err_context(Err *err, const char *fmt, ...) PRINTF_LIKE(2, 3);
bool err_hint(Err *err, const char *fmt, ...) PRINTF_LIKE(2, 3);
bool err_code(Err *err, const char *code);
bool err_transient(Err *err);

static inline bool err_is_set(const Err *err)
{
    return err->kind != ERR_NONE;
}

void err_clear(Err *err);
const char *err_kind_name(ErrKind kind); /* "source", "usage", … */
int err_exit_code(ErrKind kind);         /* DESIGN section 8; ERR_NONE is 0 */

#endif
