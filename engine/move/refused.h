/* refused.h - logins that a server turned away because its database is closed, found in its log.
 *
 * A client that still uses the old address shows up nowhere else: it never becomes a session. Lines
 * have RDS's prefix
 * (%t:%r:%u@%d:[%p]:). Pure: text in, counts out.
 */
#ifndef REFUSED_H
#define REFUSED_H

#include "engine/base/buf.h"

/* Lines at or after `since` ("2026-11-24 14:02:36", UTC). `who` gets "12 x app@shop from 10.0.0.1",
 * most first, at most eight. */
void refused_of_log(Span text, const char *since, uint64_t *count, Buf *who);

#endif
