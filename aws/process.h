/* process.h - runs the program of a profile's credential_process and reads what it prints.
 *
 * No shell: words are split as a shell would, with quotes and backslashes. Its stderr is ours, so
 * that it can ask for a touch of a key. Output is bounded, time too, and a stop ends it.
 */
#ifndef AWS_PROCESS_H
#define AWS_PROCESS_H

#include "engine/base/buf.h"
#include "engine/base/err.h"
#include "engine/base/stop.h"

MUST_USE bool process_read(const char *command, unsigned timeout_ms, const Stop *stop, Buf *out,
                           Err *err);

#endif
