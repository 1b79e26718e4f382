/* audit.h - what was done, for whoever asks afterwards: append-only JSON lines in <state
 * dir>/audit.jsonl.
 *
 * Each entry carries the SHA-256 of the line before it, so a changed or missing byte anywhere
 * breaks the chain. An entry is fsynced before audit_add returns. Opening verifies the whole chain;
 * a torn last line, left by a kill, is cut off and noted as an entry of its own. An Audit belongs
 * to one thread. No secrets, no row data.
 */
#ifndef AUDIT_H
#define AUDIT_H

#include "engine/base/log.h"

typedef struct Audit Audit;

MUST_USE Audit *audit_open(const char *dir, Err *err); /* a broken chain is ERR_STATE */
void audit_close(Audit *audit);                        /* NULL is fine */
MUST_USE bool audit_event(Audit *audit, Err *err, const char *event, const LogField *fields);
#define audit_add(audit, err, event, ...) \
    audit_event((audit), (err), (event),  \
                (const LogField[]){__VA_ARGS__ __VA_OPT__(, ){.kind = LOG_END}})
/* Hash of the last entry, 64 hex digits. */
const char *audit_head(const Audit *audit);

/* Verify without changing anything: *entries is how many are good; ERR_STATE names the first bad
 * one. */
MUST_USE bool audit_verify(const char *dir, uint64_t *entries, Err *err);

#endif
